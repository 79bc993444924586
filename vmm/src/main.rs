//! The `vector14` command.
fn main() {}
