//! The application: the only place where connectors, detectors, emitters, state and configuration
//! meet. [`pipeline`] is the way of the data, [`cli`] the commands, [`serve`] what a running
//! process answers, [`files`] records that come from files.

pub mod app;
pub mod cli;
pub mod files;
pub mod geoip;
pub mod pipeline;
pub mod routes;
pub mod serve;
pub mod tuning;
