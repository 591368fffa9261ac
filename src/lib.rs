//! `trainspot` trains a repository's model on a machine that it rents, and commits the result back.
//!
//! The rooms, and which may call which, are drawn in `ARCHITECTURE.md`.

// A run is one future of many rooms; its layout nests deeper than the default allows.
#![recursion_limit = "256"]
// What only runners and the sweep need.
#![cfg_attr(not(feature = "aws"), allow(dead_code, unused_imports))]

mod actions;
mod bitbucket_access;
pub mod config;
mod job;
mod publication;
mod step;

use config::Config;
use std::ffi::OsString;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_base::{log, memory};

/// Runs the program, and returns its exit code: 0, or that of the error's [`Kind`].
///
/// `arguments` are those after the program's name; the pipe itself takes none.
pub fn run(arguments: &[String], environment: impl Iterator<Item = (OsString, OsString)>) -> u8 {
    if arguments.first().is_some_and(|first| first == "agent") {
        return trainspot_agent::program(&arguments[1..]);
    }
    log::start();
    memory::close();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => pipe(
            environment
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        ),
        ["--help" | "-h" | "help"] => return told(&config::help::usage()),
        ["--version" | "-V"] => return told(env!("CARGO_PKG_VERSION")),
        [other, ..] => Err(unknown(other)),
    };
    match done {
        Ok(last_line) => {
            log::success(&last_line);
            0
        }
        Err(error) => {
            log::failure(&error);
            error.exit_kind().exit_code()
        }
    }
}

fn told(text: &str) -> u8 {
    log::text(text);
    0
}

fn unknown(argument: &str) -> Error {
    Error::new(format!("'{argument}' is not known; the pipe takes no arguments, see --help"))
        .kind(Kind::Configuration)
}

fn pipe(environment: impl Iterator<Item = (String, String)>) -> Result<String> {
    let environment: Vec<_> = environment.collect();
    let config = Config::load(environment.iter().cloned()).map_err(|problems| {
        // Of a wrong configuration nobody knows what is secret: whatever may be is hidden.
        log::hide(config::suspects(environment));
        Error::new(problems.to_string()).kind(Kind::Configuration)
    })?;
    log::hide(config.secrets.iter().cloned());
    if config.debug {
        log::show_debug();
    }
    tracing::info!("trainspot {}", env!("CARGO_PKG_VERSION"));
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    // One thread is enough: the work is waiting, and what is not runs on the blocking threads.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let done = runtime.block_on(async {
        let (shutdown, at_once) = (CancellationToken::new(), CancellationToken::new());
        watch_signals(&shutdown, &at_once)?;
        tokio::select! {
            done = actions::run(&config, &shutdown) => done,
            () = at_once.cancelled() => Err(Error::new("stopped at once, as it was told twice")
                .kind(Kind::Stopped)
                .leaves("the machine, if it was not ended yet; it ends itself within ORPHAN_GRACE")),
        }
    });
    // A blocking thread may still wait for a stream that its other end has forgotten.
    runtime.shutdown_background();
    done
}

/// SIGTERM and SIGINT end the run in good order, which a slow Bitbucket may delay; the same again ends it at
/// once.
fn watch_signals(shutdown: &CancellationToken, at_once: &CancellationToken) -> Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        let (shutdown, at_once) = (shutdown.clone(), at_once.clone());
        tokio::spawn(async move {
            signals.recv().await;
            tracing::warn!("told to stop");
            shutdown.cancel();
            signals.recv().await;
            at_once.cancel();
        });
    }
    Ok(())
}
