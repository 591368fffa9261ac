//! What a user sees: `INFO:`/`WARNING:`/`ERROR:` lines as pipes print them, the training's own lines, and the last line.
//!
//! The log is the process's own, so its state is global: which secrets to hide, and whether debugging lines show.
//! Nothing else prints.

mod count;
pub mod lines;
mod parts;
pub mod progress;
mod redact;

pub use count::count;

use crate::config::Secret;
use redact::Redactor;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

static DEBUG: AtomicBool = AtomicBool::new(false);
static REDACTOR: RwLock<Option<Redactor>> = RwLock::new(None);

/// Starts the log. A second call changes nothing.
pub fn start() {
    let subscriber = tracing_subscriber::registry().with(Lines);
    // Only a test that starts the log twice in one process gets an error here.
    tracing::subscriber::set_global_default(subscriber).ok();
}

/// Shows debugging lines from now on.
pub fn show_debug() {
    DEBUG.store(true, Ordering::Relaxed);
}

/// Hides these values from now on, in whatever is printed or given to [`redact`].
pub fn hide(secrets: &[Secret]) {
    if let Ok(mut redactor) = REDACTOR.write() {
        *redactor = Redactor::new(secrets);
    }
}

/// The text with each secret replaced by `$NAME`, also where it stands base64- or URL-encoded.
#[must_use]
pub fn redact(text: &str) -> String {
    match REDACTOR.read() {
        Ok(redactor) => redactor.as_ref().map_or_else(|| text.to_owned(), |redactor| redactor.apply(text)),
        // A thread died while it held the lock. Printing unredacted text is worse than printing none.
        Err(_) => "(not shown)".to_owned(),
    }
}

/// Prints a line of the training's own output, as it is, on standard output.
pub fn training(line: &str) {
    print(&format!("{}\n", redact(line)));
}

/// Prints text that is not a log line on standard output: help, a report that could not be posted.
pub fn text(text: &str) {
    print(&format!("{}\n", redact(text)));
}

/// Prints the last line of a run that went well.
pub fn success(message: &str) {
    print(&format!("\x1b[32m✔ {}\x1b[0m\n", redact(message)));
}

/// Prints the last line of a run that failed.
pub fn failure(message: &str) {
    print(&format!("\x1b[31m✖ {}\x1b[0m\n", redact(message)));
}

/// A reader that went away must not end a run that is being paid for: what cannot be printed is dropped.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

struct Lines;

impl<S: Subscriber> Layer<S> for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        let level = *metadata.level();
        let wanted = level <= Level::INFO || (level == Level::DEBUG && DEBUG.load(Ordering::Relaxed));
        wanted && metadata.target().starts_with(env!("CARGO_PKG_NAME"))
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        let (colour, name) = match *event.metadata().level() {
            Level::ERROR => ("\x1b[31m", "ERROR"),
            Level::WARN => ("\x1b[33m", "WARNING"),
            Level::INFO => ("\x1b[34m", "INFO"),
            _ => ("\x1b[36m", "DEBUG"),
        };
        let line = format!("{colour}{name}: {}\x1b[0m\n", redact(&message.0));
        std::io::stderr().lock().write_all(line.as_bytes()).ok();
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.0, "{value:?}");
        }
    }
}
