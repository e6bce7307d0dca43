//! loteria
fn main() {}
