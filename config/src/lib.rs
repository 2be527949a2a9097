//! Configuration: layering, validation with line numbers, schema.
