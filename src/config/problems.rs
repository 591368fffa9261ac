//! Every mistake in the environment, told at once.

use std::fmt;

/// The mistakes of one environment, in the table's order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Problems(pub(super) Vec<Mistake>);

/// A variable, and the words that tell what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) variable: String,
    pub(super) what: String,
}

impl Problems {
    /// Adds a mistake. What it quotes may be a secret that was put into the wrong variable.
    pub(super) fn add(&mut self, variable: impl Into<String>, what: impl Into<String>) {
        let what = trainspot_base::log::without_tokens(&what.into());
        self.0.push(Mistake { variable: variable.into(), what });
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(formatter, "the configuration has {} mistake{plural}; nothing was started", self.0.len())?;
        for Mistake { variable, what } in &self.0 {
            write!(formatter, "\n  {variable} {what}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
