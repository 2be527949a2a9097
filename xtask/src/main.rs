//! Developer tasks: the benchmark, generated files.
fn main() {}
