//! What every connector over HTTP shares: transport, tokens, quotas, retries, bodies, guards.

pub mod secret;
