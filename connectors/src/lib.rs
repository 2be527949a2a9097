//! Connectors: how the vendors' audit logs are listed, fetched and read.
//!
//! A connector finds work ([`Connector::list`]), turns an item of work into pages
//! ([`Connector::fetch`]) and lends its [`RecordReader`], which reads a record's head and turns
//! it into events. Nothing here stores, detects or delivers.
#![warn(missing_docs)]

mod archive;
mod contract;
pub mod diagnosis;
pub mod google;
pub mod kernel;
pub mod microsoft;
pub mod options;
pub mod own_domains;
pub mod records;
pub mod registry;

pub use archive::{Archive, ArchiveLimits, NoArchive, Searchable};
pub use contract::{
    Connector, Cost, Depth, FetchError, Listing, NormaliseError, PageStream, RecordReader,
    Schedule, Standing, Withheld,
};
pub use kernel::secret::Environment;
pub use kernel::surroundings::{BuildError, Surroundings};
pub use own_domains::OwnDomains;
