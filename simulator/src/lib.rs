//! A simulated world: Microsoft, Google, Splunk HEC and syslog, with seeded tenants and a fault script.
//!
//! The crate imitates what the vendors document and what their services were seen to do; it knows
//! none of the other crates of this workspace. [`World`] invents the records, the scripted attacks
//! and the answer [`Sheet`]; [`Simulator`] plays the services, as routers in process or on loopback.
//! It must not detect anything: the sheet is written by the scripts that made the records.
#![warn(missing_docs)]
// The `Err` of a handler's step is the refusal to send: made at most once a request, never passed on.
#![allow(clippy::result_large_err)]

pub mod clock;
pub mod credentials;
pub mod fault;
pub mod google;
pub mod hec;
mod jwt;
pub mod microsoft;
mod reply;
pub mod server;
pub mod sheet;
pub mod syslog;
mod tls;
pub mod world;

pub use clock::{ClockOrigin, VirtualClock};
pub use credentials::Credentials;
pub use fault::{Endpoint, Fault, FaultRule, FaultScript};
pub use server::{Running, Simulator, SimulatorError, SimulatorOptions};
pub use sheet::{DueFinding, Record, SeenFinding, Sheet, Verdict};
pub use world::{AttackPlan, BaseRates, Delivery, TenantOptions, World, WorldOptions};
