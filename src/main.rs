//! The `trainspot` command: see the library's documentation.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(trainspot::run(&arguments, std::env::vars_os()))
}
