//! Which connectors exist.
