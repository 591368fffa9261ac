//! Whole local runs whose machine is hostile: its agent's answers are changed on their way, or are an attacker's own.
//!
//! The pipe starts itself as the agent. Here it is this program, which is the pipe if it is started like one, the agent
//! with what a test has planned for it if it is started like that, and else the tests: so no part of the product is
//! changed. Cargo's own harness could not be all of them.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on has failed")]

mod agent;
mod attacks;
mod campaign;
mod mutation;
mod plan;
mod run;
#[path = "../support.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod support;

use std::process::ExitCode;
use std::time::Instant;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match (arguments.first().map(String::as_str), plan::folder()) {
        (Some("agent"), Some(folder)) => agent::run(&arguments, &folder),
        (None, Some(folder)) => run::pipe(&folder),
        _ => test(&arguments),
    }
}

/// Runs the tests whose names hold one of the words on the command line, or all.
fn test(arguments: &[String]) -> ExitCode {
    let words: Vec<_> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = |test: &&Test| words.is_empty() || words.iter().any(|word| test.0.contains(*word));
    let tests = attacks::TESTS.iter().chain(&campaign::TESTS).filter(chosen);
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, test) in tests {
        let start = Instant::now();
        let ok = std::panic::catch_unwind(test).is_ok();
        let verdict = if ok { "ok" } else { "FAILED" };
        println!("test hostile::{name} ... {verdict} ({:.1} s)", start.elapsed().as_secs_f64());
        if ok { passed += 1 } else { failed.push(*name) }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {} failed {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
