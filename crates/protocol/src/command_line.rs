//! The command line by which the pipe starts an agent on the machine.

use trainspot_base::error::{Error, Result};

/// The verbs of an agent's command line. An agent with the verb `supervise` reads no standard input; requests
/// reach it through an agent with the verb `ask`.
pub const AGENT_VERBS: [&str; 10] =
    ["supervise", "ask", "unpack", "commit", "restore", "pack", "pack-checkpoint", "dvc", "rescue", "follow"];

/// How the supervisor ends the machine when the pipe falls silent or asks for the machine's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndMode {
    /// The supervisor removes the machine's home: the machine was no more than a folder.
    Remove,
    /// The supervisor powers the machine off. The machine was rented so that this ends it for good.
    PowerOff,
}

impl EndMode {
    /// The value of the flag `--ending` for this mode.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::PowerOff => "power-off",
        }
    }

    /// The mode that a value of the flag `--ending` stands for.
    ///
    /// # Errors
    /// The value stands for no mode.
    pub fn parse(value: &str) -> Result<Self> {
        let mode = [Self::Remove, Self::PowerOff].into_iter().find(|mode| mode.as_str() == value);
        mode.ok_or_else(|| Error::new(format!("agent: --ending: there is no ending '{value}'")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_has_a_word_and_no_other_word_is_one() {
        for (mode, word) in [(EndMode::Remove, "remove"), (EndMode::PowerOff, "power-off")] {
            assert_eq!((mode.as_str(), EndMode::parse(word).unwrap()), (word, mode));
        }
        let error = EndMode::parse("poweroff").unwrap_err().render();
        assert_eq!(error, "agent: --ending: there is no ending 'poweroff'");
    }
}
