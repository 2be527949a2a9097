//! The forms in which items leave: one module per form, pure functions.

mod attack;
pub mod cef;
pub(crate) mod internal;
pub mod ocsf;
pub mod risk;
pub mod splunk;
pub mod syslog5424;
pub(crate) mod text;
