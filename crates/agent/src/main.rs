//! The agent as a program of its own, for a machine that cannot run the pipe's: the same verbs, in a third of
//! the bytes.

use std::process::ExitCode;
use trainspot_base::log;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["agent", ..] => ExitCode::from(trainspot_agent::program(&arguments[1..])),
        ["--version"] => {
            log::text(env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(trainspot_agent::program(&arguments)),
    }
}
