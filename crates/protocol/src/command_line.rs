//! The command line by which the pipe starts an agent on the machine.

use trainspot_base::error::{Error, Result};

/// What an agent can be started as. `supervise` answers nobody; it is asked by way of `ask`.
pub const VERBS: [&str; 9] =
    ["supervise", "ask", "unpack", "commit", "pack", "pack-checkpoint", "dvc", "rescue", "follow"];

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

    /// The ending that has this word.
    ///
    /// # Errors
    /// None has.
    pub fn of(word: &str) -> Result<Self> {
        let ending = [Self::Remove, Self::PowerOff].into_iter().find(|ending| ending.word() == word);
        ending.ok_or_else(|| Error::new(format!("agent: --ending: there is no ending '{word}'")))
    }
}
