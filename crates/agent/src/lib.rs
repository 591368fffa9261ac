//! What runs on the machine: the pipe's own binary as `trainspot agent VERB --home DIR`; or, for a machine
//! that cannot run that one, `trainspot-agent agent VERB --home DIR`, without what only the pipe needs.
//!
//! `supervise` supervises the machine: it runs the training, takes checkpoints, and ends the machine when the
//! pipe falls silent, or when a runner of Bitbucket's that it runs is not needed any more. The other verbs
//! are short-lived; the pipe starts one for each thing that it wants, and its streams are its standard input
//! and output. Nothing secret is in an argument or a file.

mod checkpoint;
mod checkpoint_scheduler;
mod command;
mod copying;
mod detached;
mod dvc;
mod ending;
mod guard;
mod home;
pub mod interruption;
mod metadata;
mod registrar;
mod requests;
mod runner;
mod selection;
mod stillness;
mod supervise;
mod tail;
mod verbs;
mod wake;

pub use command::{end_all, end_all_but_supervisor, has_supervisor, shell};
pub use home::{Home, own_folder};

use std::collections::BTreeMap;
use std::time::Duration;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::{log, memory};
use trainspot_git::Snapshot;
use trainspot_protocol::{AGENT_VERBS, EndMode};

/// Runs the agent as a process: `arguments` are what follows `agent`. Returns the process's exit code.
///
/// An agent's words travel on standard error; its standard output is data.
#[must_use]
pub fn program(arguments: &[String]) -> u8 {
    log::start();
    memory::close_agent();
    run(arguments).map_or_else(
        |error| {
            tracing::error!("{}", error.render());
            error.exit_kind().exit_code()
        },
        |()| 0,
    )
}

/// Runs one verb.
fn run(arguments: &[String]) -> Result<()> {
    let (verb, flags) = arguments.split_first().ok_or_else(|| Error::new("agent: no verb"))?;
    let unknown = || Error::new(format!("agent: no verb '{verb}'"));
    if !AGENT_VERBS.contains(&verb.as_str()) {
        return Err(unknown());
    }
    let flags = VerbFlags::parse(flags, flags_of(verb))?;
    // The supervisor changes its folder.
    let home = std::path::absolute(flags.get("--home")?).map(Home::new).context("agent: --home")?;
    // The supervisor makes it, or refuses it.
    if verb != "supervise" {
        home.check()?;
    }
    match verb.as_str() {
        "supervise" => supervise::run(&home, flags.supervisor_options()?),
        "ask" => verbs::ask(&home),
        "unpack" => verbs::unpack(&home),
        "commit" => Snapshot::restore(std::io::stdin().lock(), &home.work()),
        "pack" => verbs::pack(&home),
        "pack-checkpoint" => {
            verbs::pack_checkpoint(&home, flags.get("--number")?.parse().context("agent: --number")?)
        }
        "restore" => detached::restore(&home),
        "dvc" => dvc::run(&home),
        "rescue" => dvc::rescue(&home),
        "follow" => verbs::follow(&home, flags.get("--offset")?.parse().context("agent: --offset")?),
        _ => Err(unknown()),
    }
}

/// The flags of a verb beside `--home`, which all have.
fn flags_of(verb: &str) -> &'static [&'static str] {
    match verb {
        "supervise" => &["--grace", "--ending", "--guard", "--metadata"],
        "pack-checkpoint" => &["--number"],
        "follow" => &["--offset"],
        _ => &[],
    }
}

#[derive(Debug)]
struct VerbFlags<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> VerbFlags<'a> {
    /// Reads pairs of a flag and its value. What is not known is refused: a flag that is passed over, such as
    /// a guard's, could leave a machine without its end.
    fn parse(arguments: &'a [String], known: &[&str]) -> Result<Self> {
        let mut flags = BTreeMap::new();
        for pair in arguments.chunks(2) {
            let [name, value] = pair else {
                return Err(Error::new(format!("agent: '{}' has no value", pair.concat())));
            };
            if name != "--home" && !known.contains(&name.as_str()) {
                return Err(Error::new(format!("agent: no flag '{name}'")));
            }
            if flags.insert(name.as_str(), value.as_str()).is_some() {
                return Err(Error::new(format!("agent: {name} is given twice")));
            }
        }
        Ok(Self(flags))
    }

    fn get(&self, name: &str) -> Result<&'a str> {
        self.0.get(name).copied().ok_or_else(|| Error::new(format!("agent: {name} is missing")))
    }

    fn supervisor_options(&self) -> Result<supervise::SupervisorOptions> {
        let guard = self.0.get("--guard").map(std::path::absolute).transpose().context("agent: --guard")?;
        Ok(supervise::SupervisorOptions {
            grace: self.get("--grace")?.parse().map(Duration::from_secs).context("agent: --grace")?,
            ending: EndMode::parse(self.get("--ending")?)?,
            guard,
            metadata: self.0.get("--metadata").copied().map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        run(&words).unwrap_err().render()
    }

    #[test]
    fn what_is_not_known_is_refused_before_anything_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home");
        let supervise = format!("supervise --home {} --grace 3", home.display());
        for (line, why) in [
            (format!("{supervise} --ending poweroff"), "agent: --ending: there is no ending 'poweroff'"),
            (format!("{supervise} --ending power-off --guards /g"), "agent: no flag '--guards'"),
            (format!("{supervise} --ending remove --grace 4"), "agent: --grace is given twice"),
            (format!("{supervise} --ending"), "agent: '--ending' has no value"),
            (supervise.clone(), "agent: --ending is missing"),
            (format!("follow --home {} --number 1", home.display()), "agent: no flag '--number'"),
            (format!("dance --home {}", home.display()), "agent: no verb 'dance'"),
            ("ask".to_owned(), "agent: --home is missing"),
        ] {
            assert_eq!(refusal(&line), why, "{line}");
        }
        assert!(!home.exists());
    }

    #[test]
    fn an_ending_is_what_its_word_says() {
        for ending in [EndMode::Remove, EndMode::PowerOff] {
            assert_eq!(EndMode::parse(ending.as_str()).unwrap(), ending);
        }
    }
}
