//! The one error of the program: what failed, on what, why, what may still exist, and what to do next.
//!
//! Rooms return a typed error of their own only where a caller branches on it; everything else is an
//! [`Error`].

use crate::log::indented;
use std::error::Error as StdError;
use std::fmt::{self, Display, Write};

/// A result whose error is the program's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which part of a run failed. Decides the exit code, so that a pipeline can tell the cases apart, and the
/// words of the report; whether to try again is [`Error::is_transient`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing was started: the environment is wrong or incomplete.
    Configuration,
    /// No machine could be had, or it was lost for good.
    Machine,
    /// The training failed, ran out of time, or did not make what it had to.
    Training,
    /// The outputs are there, but could not be committed, pushed or reported.
    Publication,
    /// The run was told to stop (SIGTERM or SIGINT).
    Stopped,
    /// Anything else.
    Unexpected,
}

impl Kind {
    /// Every kind, in the order of its exit code: what the documentation lists.
    pub const ALL: [Self; 6] = [
        Self::Unexpected,
        Self::Configuration,
        Self::Machine,
        Self::Training,
        Self::Publication,
        Self::Stopped,
    ];

    /// The process's exit code.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Configuration => 2,
            Self::Machine => 3,
            Self::Training => 4,
            Self::Publication => 5,
            Self::Stopped => 6,
        }
    }

    /// What the exit code means, as the documentation says it.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Unexpected => "an error that none of the other codes covers",
            Self::Configuration => "the configuration is wrong; nothing was started",
            Self::Machine => "no machine could be had, or it was lost",
            Self::Training => "the training failed, ran out of time, or did not write its outputs",
            Self::Publication => "the outputs are there, but could not be committed or pushed",
            Self::Stopped => "the run was stopped from outside",
        }
    }
}

const STILL_THERE: &str = "Still there: ";
const NEXT_STEP: &str = "Next: ";

/// One failure: its message, its source, what may still exist because of it, and what the user can do next.
#[derive(Debug)]
pub struct Error {
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    kind: Option<Kind>,
    is_transient: Option<bool>,
    hint: Option<String>,
    leftovers: Vec<String>,
}

impl Error {
    /// An error that says in one sentence, without its final stop, what failed and on what.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
            kind: None,
            is_transient: None,
            hint: None,
            leftovers: Vec::new(),
        }
    }

    /// Adds why it failed.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says which part of the run failed. The outermost kind of a chain counts.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }

    /// Says which part of the run failed, unless the error says so itself.
    #[must_use]
    pub fn or_kind(self, kind: Kind) -> Self {
        if self.stated_kind().is_some() { self } else { self.kind(kind) }
    }

    /// Says that the failure may be gone when the same is done again. The outermost such statement of a chain
    /// counts.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.is_transient = Some(true);
        self
    }

    /// Says that doing the same again is of no use, whatever the error's sources say.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.is_transient = Some(false);
        self
    }

    /// Says what the user can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says what the user can do next, where that is known.
    #[must_use]
    pub fn maybe_hint(self, hint: Option<impl Into<String>>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// Names something that may still exist because of this failure, with the way to end it.
    #[must_use]
    pub fn leaves(mut self, leftover: impl Into<String>) -> Self {
        self.leftovers.push(leftover.into());
        self
    }

    /// Makes one error of several failures. A single failure stays as it is; more become one error that says
    /// `what`, quotes each, and names all leftovers.
    ///
    /// # Errors
    /// `errors` is not empty.
    pub fn all(what: &str, mut errors: Vec<Self>) -> Result<()> {
        if errors.len() < 2 {
            return errors.pop().map_or(Ok(()), Err);
        }
        let inner = || errors.iter().flat_map(Self::own_chain);
        Err(Self {
            kind: inner().find_map(|error| error.kind),
            is_transient: Some(errors.iter().all(Self::is_transient)),
            hint: inner().find_map(|error| error.hint.clone()),
            leftovers: without_repeats(inner().flat_map(|error| error.leftovers.clone())),
            ..Self::new(what).source(without_repeats(errors.iter().map(|error| chain(error))).join("; "))
        })
    }

    /// All that may still exist because of this error or of one of its sources.
    pub fn leftovers(&self) -> impl Iterator<Item = &str> {
        self.own_chain().flat_map(|error| error.leftovers.iter().map(String::as_str))
    }

    /// The outermost kind in the chain; [`Kind::Unexpected`] when none was given.
    #[must_use]
    pub fn exit_kind(&self) -> Kind {
        self.stated_kind().unwrap_or(Kind::Unexpected)
    }

    fn stated_kind(&self) -> Option<Kind> {
        self.own_chain().find_map(|error| error.kind)
    }

    /// Whether the failure may be gone when the same is done again. Only where it arises is that known: an
    /// error of which nobody said so is permanent.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.own_chain().find_map(|error| error.is_transient).unwrap_or(false)
    }

    /// The outermost hint in the chain: what the user can do next.
    #[must_use]
    pub fn next_step(&self) -> Option<&str> {
        self.own_chain().find_map(|error| error.hint.as_deref())
    }

    /// The error as a user reads it: the chain in one sentence, then what is left, then what to do.
    ///
    /// Further lines of each are indented: what is quoted from others cannot begin a line of its own.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = indented(&chain(self));
        for leftover in self.leftovers() {
            text.push('\n');
            text.push_str(STILL_THERE);
            text.push_str(&indented(leftover));
        }
        if let Some(hint) = self.next_step() {
            text.push('\n');
            text.push_str(NEXT_STEP);
            text.push_str(&indented(hint));
        }
        text
    }

    /// Reads back an error that another process of this program, such as an agent, rendered, so that
    /// leftovers and hint come once, and last, when this process renders the whole. The log has indented all
    /// lines but the first.
    #[must_use]
    pub fn rendered(text: &str) -> Self {
        let (mut error, mut lines) = (Self::new(""), Vec::new());
        for line in text.lines().map(|line| line.strip_prefix("  ").unwrap_or(line)) {
            if let Some(leftover) = line.strip_prefix(STILL_THERE) {
                error = error.leaves(leftover);
            } else if let Some(hint) = line.strip_prefix(NEXT_STEP) {
                error = error.hint(hint);
            } else {
                lines.push(line);
            }
        }
        Self { message: lines.join("\n"), ..error }
    }

    fn own_chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self as &(dyn StdError + 'static)), |&error| error.source())
            .filter_map(|error| error.downcast_ref::<Self>())
    }
}

fn without_repeats(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    for text in texts {
        if !kept.contains(&text) {
            kept.push(text);
        }
    }
    kept
}

/// An error and its sources in one line, `what: why: why`.
///
/// A source that its wrapper already quotes is not repeated.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = text_of(error);
    for source in std::iter::successors(error.source(), |&error| error.source()) {
        let why = text_of(source);
        if !text.contains(&why) {
            text.push_str(": ");
            text.push_str(&why);
        }
    }
    text
}

/// The longest text of an error that is not the program's own. A parser repeats input that it cannot read,
/// which is as long as its sender likes; and the search for secrets takes many times a text's length of
/// memory.
const FOREIGN_TEXT_LIMIT_BYTES: usize = 16 << 10;

/// A text that takes no more than [`FOREIGN_TEXT_LIMIT_BYTES`].
struct CutText(String);

impl Write for CutText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = text.floor_char_boundary(FOREIGN_TEXT_LIMIT_BYTES - self.0.len());
        self.0.push_str(&text[..end]);
        if end < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// The text of one error of a chain, cut if it is not the program's own.
fn text_of(error: &(dyn StdError + 'static)) -> String {
    if let Some(own) = error.downcast_ref::<Error>() {
        return own.message.clone();
    }
    let mut cut = CutText(String::new());
    if write!(cut, "{error}").is_err() {
        cut.0.push('…');
    }
    cut.0
}

impl Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Puts what was being done in front of an error.
pub trait Context<T> {
    /// Wraps the error in one that says what failed, as "cannot …".
    fn context(self, message: impl Into<String>) -> Result<T>;

    /// Does the same as [`Context::context`] with a message that is made only where there is an error.
    fn with_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T, E: Into<Box<dyn StdError + Send + Sync>>> Context<T> for std::result::Result<T, E> {
    fn context(self, message: impl Into<String>) -> Result<T> {
        self.map_err(|error| Error::new(message).source(error))
    }

    fn with_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|error| Error::new(message()).source(error))
    }
}

#[cfg(test)]
mod tests;
