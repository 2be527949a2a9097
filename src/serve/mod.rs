//! What a running process answers: health and metrics over HTTP, commands over the control socket.

pub mod control;
pub mod http;
pub mod metrics;
