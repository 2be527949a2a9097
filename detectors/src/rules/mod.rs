//! Rules: from a YAML file to what the engine runs.
//!
//! A file is valid Sigma; our own keys stand beside Sigma's (`schema`). Everything is checked and
//! compiled here, once; what is wrong is said with file, document and key.

mod build;
mod error;
mod facts;
mod index;
pub(crate) mod interest;
mod lint;
mod load;
mod need;
mod rule;
mod rule_file;
mod schema;
mod set;
mod sigma;
mod template;
mod tuned;
mod usual;
mod window_rule;

pub use error::RuleError;
pub use lint::{PLACEHOLDER, Remark, Weight, lint};
pub use load::{SourceFile, embedded, folder};
pub use need::Need;
pub use rule::{Alert, Counted, Kind, Rule, Tier};
pub use schema::{Anchor, Case, Equivalents, Expectation, Pack, Repeat, VaryTime};
pub use set::{RuleSet, Skipped};
pub use sigma::{Stock, StockState, mapped, stock};

pub(crate) use exfilwatch_model::Pattern;
pub(crate) use rule::{Above, Also, FirstSeen, Layout, Usual, WindowBase};
pub(crate) use template::Piece;
