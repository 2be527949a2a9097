//! What every connector over HTTP shares, bottom up: transport, the wire with its time-outs,
//! bodies under a cap, the splitter, quotas, tokens, and the client that puts them together.
//!
//! Nothing here knows a vendor: how an answer is to be understood is handed in by the connector.

pub mod auth;
pub mod body;
pub mod client;
pub mod jwt;
pub mod limit;
pub mod oauth;
pub mod pages;
pub mod retry;
pub mod secret;
pub mod split;
pub mod surroundings;
pub mod transport;
pub mod url_guard;
pub mod wire;
pub mod words;
