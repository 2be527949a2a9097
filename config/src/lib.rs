//! Configuration: layering, validation with line numbers, schema.
//!
//! [`load`] joins the built-in defaults, the main file with what it includes, the environment and
//! the flags, in this order, and gives a typed [`Config`] or everything that is wrong with it, each
//! with its place. One bad included file is left out with its tenants ([`Config::disabled`]); a
//! fault anywhere else is a [`ConfigError`].
//!
//! No secret passes through here: the configuration only names where secrets are found.
#![warn(missing_docs)]

mod checks;
mod collect;
mod files;
mod kinds;
mod layers;
mod lists;
mod load;
mod nearest;
mod options;
mod origin;
mod reader;
mod schema;
mod shape;
mod show;
mod tables;
mod tree;

pub use files::{FILE_BYTES_MAX, INCLUDED_FILES_MAX};
pub use kinds::ConnectorOptions;
pub use layers::Sources;
pub use load::{Config, ConfigError, ConnectorConfig, DisabledFile, EmitterConfig, load};
pub use options::{InternalDomains, ListsOptions, RunOptions, ServeOptions, StateOptions, Tenant};
pub use origin::{Origin, Problem};
pub use schema::schema;
pub use show::Shown;

/// The built-in defaults with comments: a file to start from.
pub fn default_toml() -> &'static str {
    layers::DEFAULTS
}
