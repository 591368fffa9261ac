//! What runs on the machine: the same binary, started as `trainspot agent VERB --home DIR`.
//!
//! `supervise` is the machine's watch: it runs the training, takes checkpoints, and ends the machine when the pipe falls
//! silent, or when a runner of Bitbucket's that it runs is not needed any more. The other verbs are short-lived; the pipe starts one for each thing that it wants, and its streams are its
//! standard input and output. Nothing secret is in an argument or a file.

mod checkpoint;
mod command;
mod dvc;
mod guard;
mod home;
mod leaving;
mod metadata;
pub mod protocol;
mod registrar;
mod requests;
mod runner;
pub mod runner_log;
mod saving;
mod supervise;
mod tail;
mod verbs;

pub use checkpoint::Manifest;
pub use command::{end_all, end_all_but_the_watch, is_watched, shell};
pub use home::Home;
pub use verbs::Wanted;

use crate::error::{Context as _, Error, Result};
use crate::repo::Snapshot;
use std::collections::BTreeMap;
use std::time::Duration;

/// What the machine does when the pipe falls silent or asks for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The home is removed: the machine was no more than a folder.
    Remove,
    /// The machine is powered off. It was rented so that this ends it for good.
    PowerOff,
}

impl Ending {
    /// The word for it on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::PowerOff => "power-off",
        }
    }
}

/// Runs one verb: `arguments` are what follows `trainspot agent`.
pub fn run(arguments: &[String]) -> Result<()> {
    let (verb, flags) = arguments.split_first().ok_or_else(|| Error::new("agent: no verb"))?;
    let flags = Flags::parse(flags)?;
    // The supervisor changes its folder.
    let home = std::path::absolute(flags.get("--home")?).map(Home::new).context("agent: --home")?;
    match verb.as_str() {
        "supervise" => supervise::run(&home, flags.orders()?),
        "ask" => verbs::ask(&home),
        "unpack" => verbs::unpack(&home),
        "commit" => Snapshot::restore(std::io::stdin().lock(), &home.work()),
        "pack" => verbs::pack(&home),
        "pack-checkpoint" => {
            verbs::pack_checkpoint(&home, flags.get("--number")?.parse().context("agent: --number")?)
        }
        "dvc" => dvc::run(&home),
        "rescue" => dvc::rescue(&home),
        "follow" => verbs::follow(&home, flags.get("--offset")?.parse().context("agent: --offset")?),
        _ => Err(Error::new(format!("agent: no verb '{verb}'"))),
    }
}

struct Flags<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Flags<'a> {
    fn parse(arguments: &'a [String]) -> Result<Self> {
        let pairs = arguments.chunks(2).map(|pair| match pair {
            [name, value] => Ok((name.as_str(), value.as_str())),
            _ => Err(Error::new(format!("agent: '{}' has no value", pair.concat()))),
        });
        pairs.collect::<Result<_>>().map(Self)
    }

    fn get(&self, name: &str) -> Result<&'a str> {
        self.0.get(name).copied().ok_or_else(|| Error::new(format!("agent: {name} is missing")))
    }

    fn orders(&self) -> Result<supervise::Orders> {
        let remove = self.get("--ending")? != Ending::PowerOff.word();
        let guard = self.0.get("--guard").map(std::path::absolute).transpose().context("agent: --guard")?;
        Ok(supervise::Orders {
            grace: self.get("--grace")?.parse().map(Duration::from_secs).context("agent: --grace")?,
            ending: if remove { Ending::Remove } else { Ending::PowerOff },
            guard,
            metadata: self.0.get("--metadata").copied().map(str::to_owned),
        })
    }
}
