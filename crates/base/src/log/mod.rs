//! What a user sees: `INFO:`/`WARNING:`/`ERROR:` lines as pipes print them, the training's own lines, and the
//! last line.
//!
//! A line that begins at the margin is the pipe's own. What others wrote stands behind a bar, and where the
//! pipe quotes them, all lines but the first are indented: no line of theirs can pass for one of the pipe's.
//!
//! The log is the process's own, so its state is global: which secrets to hide, and whether debugging lines
//! show. Nothing else prints.

mod count;
mod foreign;
pub mod lines;
mod parts;
pub mod progress;
mod redact;
mod secret;
mod windows;

pub use count::count;
pub(crate) use foreign::indented;
pub use foreign::{one_line, plain};
pub use secret::{Secret, is_secret_name};

use crate::error::Error;
use crate::mutex::lock;
use redact::Redactor;
use secrecy::ExposeSecret as _;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, RwLock};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

static SHOW_DEBUG: AtomicBool = AtomicBool::new(false);
static SECRET_REDACTOR: RwLock<Option<Redactor>> = RwLock::new(None);
static HIDDEN_SECRETS: Mutex<Vec<Secret>> = Mutex::new(Vec::new());

/// What stands before each line that others wrote.
const QUOTE_BAR: &str = "│ ";

/// Starts the log. A second call changes nothing.
pub fn start() {
    let subscriber = tracing_subscriber::registry().with(LogLayer);
    // Only a test that starts the log twice in one process gets an error here.
    tracing::subscriber::set_global_default(subscriber).ok();
}

/// Shows debugging lines from now on.
pub fn show_debug() {
    SHOW_DEBUG.store(true, Ordering::Relaxed);
}

/// Hides these values as well from now on, in whatever is printed or given to [`redact`].
pub fn hide(secrets: impl IntoIterator<Item = Secret>) {
    let mut hidden = lock(&HIDDEN_SECRETS);
    let known = hidden.len();
    for secret in secrets {
        let value = secret.value.expose_secret();
        let is_known =
            || hidden.iter().any(|known| known.name == secret.name && known.value.expose_secret() == value);
        if value.len() >= parts::SHORTEST_PART_BYTES && !is_known() {
            hidden.push(secret);
        }
    }
    if hidden.len() != known
        && let Ok(mut redactor) = SECRET_REDACTOR.write()
    {
        *redactor = Redactor::new(&hidden);
    }
}

/// The text with each secret replaced by `$NAME`, also where it stands in hex, base64, JSON or a URL.
#[must_use]
pub fn redact(text: &str) -> String {
    redact_after("", text)
}

fn redact_after(before: &str, text: &str) -> String {
    match SECRET_REDACTOR.read() {
        Ok(redactor) => {
            redactor.as_ref().map_or_else(|| text.to_owned(), |redactor| redactor.apply(before, text))
        }
        // A thread died while it held the lock. Printing unredacted text is worse than printing none.
        Err(_) => "(not shown)".to_owned(),
    }
}

/// Text as it may leave the pipe for a commit, a comment or a page: without secrets, and without what is no
/// text.
#[must_use]
pub fn fit_to_send(text: &str) -> String {
    redact(&plain(text))
}

/// The text without what is like a token in it, though nobody said that it is secret.
#[must_use]
pub fn without_tokens(text: &str) -> String {
    parts::without_tokens(text)
}

/// Prints a line of the training's own output on standard output.
pub fn training(line: &str) {
    print(&barred(&redact(&foreign::coloured(line))));
}

/// Prints text that others may have written a part of, such as a report, on standard output.
pub fn quoted(text: &str) {
    print(&barred(&fit_to_send(text)));
}

/// The text with a bar before each line.
fn barred(text: &str) -> String {
    let barred = text.split('\n').map(|line| {
        // A colour that the line does not end would be that of the pipe's next line.
        let end = if line.contains('\x1b') { "\x1b[0m" } else { "" };
        format!("{QUOTE_BAR}{line}{end}\n")
    });
    barred.collect()
}

/// Prints text of the pipe's own that is not a log line on standard output: help, a plan.
pub fn text(text: &str) {
    print(&format!("{}\n", fit_to_send(text)));
}

/// Prints the last line of a run that went well.
pub fn success(message: &str) {
    print(&format!("\x1b[32m✔ {}\x1b[0m\n", indented(&fit_to_send(message))));
}

/// Prints the last lines of a run that failed.
pub fn failure(error: &Error) {
    print(&format!("\x1b[31m✖ {}\x1b[0m\n", fit_to_send(&error.render())));
}

/// A reader that went away must not end a run that is being paid for: what cannot be printed is dropped.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

struct LogLayer;

impl<S: Subscriber> Layer<S> for LogLayer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let level = *metadata.level();
        let wanted = level <= Level::INFO || (level == Level::DEBUG && SHOW_DEBUG.load(Ordering::Relaxed));
        wanted && metadata.target().starts_with("trainspot")
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        std::io::stderr().lock().write_all(line_of(event).as_bytes()).ok();
    }
}

/// What is printed of an event.
fn line_of(event: &Event<'_>) -> String {
    let mut message = Message(String::new());
    event.record(&mut message);
    let (colour, name) = match *event.metadata().level() {
        Level::ERROR => ("\x1b[31m", "ERROR"),
        Level::WARN => ("\x1b[33m", "WARNING"),
        Level::INFO => ("\x1b[34m", "INFO"),
        _ => ("\x1b[36m", "DEBUG"),
    };
    format!("{colour}{name}: {}\x1b[0m\n", indented(&fit_to_send(&message.0)))
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests;
