//! The finding as an OCSF Detection Finding: class 2004, schema 1.5.0, profiles `cloud` and
//! `security_control`. The other formats are projections of it.
//!
//! Deterministic: nothing here reads a clock, a host name or a random number, so a resend is the
//! same document. What OCSF has no place for stands in `unmapped.exfilwatch`. No top-level
//! `actor`: the class does not have one; who did it stands in the evidence.

mod document;
mod project;
mod shrink;
mod subjects;

pub use document::Document;
pub use shrink::Part;
