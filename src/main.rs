//! The `trainspot` command: see the library's documentation.
fn main() {}
