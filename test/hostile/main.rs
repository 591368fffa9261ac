//! Whole local runs whose machine is hostile: its agent's answers are changed on their way, or are an
//! attacker's own.
//!
//! The pipe starts itself as the agent. Here it is this program, which is the pipe if it is started like one,
//! the agent with what a test has planned for it if it is started like that, and else the tests: so no part
//! of the product is changed. Cargo's own harness could not be all of them.

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
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A run mostly waits, for its agent's next beat or for a deadline.
const TESTS_AT_ONCE: usize = 4;

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
    let tests: Vec<_> = campaign::TESTS.iter().chain(&attacks::TESTS).filter(chosen).collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..TESTS_AT_ONCE {
            scope.spawn(|| {
                while let Some((name, test)) = tests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let start = Instant::now();
                    let ok = std::panic::catch_unwind(test).is_ok();
                    let verdict = if ok { "ok" } else { "FAILED" };
                    println!("test hostile::{name} ... {verdict} ({:.1} s)", start.elapsed().as_secs_f64());
                    if !ok {
                        failed.lock().unwrap().push(*name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let passed = tests.len() - failed.len();
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {} failed {failed:?}", failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
