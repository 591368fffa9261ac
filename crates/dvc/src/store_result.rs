//! What a machine answers to a [`StoreRequest`]: hashes and numbers. The answer names no path and holds no
//! content of a file, so that no machine can choose what the pipe writes or commits.

use super::push::PushReport;
use super::{Md5, Pointer, StoreRequest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use trainspot_base::error::{Error, Kind, Result};

/// The largest size and count that every reader of YAML and JSON keeps exactly: 2^53.
const NUMBER_LIMIT: u64 = 1 << 53;
/// The most warnings in a result. Further warnings are counted in the last one.
const WARNINGS_LIMIT: usize = 100;
/// A longer warning is cut off at this many bytes.
const WARNING_LIMIT_BYTES: usize = 1000;

/// What a machine did for a [`StoreRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreResult {
    /// The pointers of the requested outputs, in the request's order.
    pub(super) pointers: Vec<Pointer>,
    /// What was sent where, each remote once.
    pub(super) sent: Vec<SentObjects>,
    /// What was left out, and why, in words.
    pub(super) warnings: Vec<String>,
}

/// The objects that went to one remote of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SentObjects {
    /// The number of the request's share that has the remote; none for the remotes of repositories that the
    /// clone does not have.
    pub(super) share: Option<usize>,
    /// The remote's name in that share; empty for a remote that was given by its address alone.
    pub(super) remote: String,
    /// How many objects were sent.
    pub(super) objects: u64,
    /// The bytes of the objects that were sent.
    pub(super) bytes: u64,
    /// How many were there already.
    pub(super) there: u64,
}

impl StoreResult {
    /// Reads a machine's answer to a request.
    ///
    /// # Errors
    /// The answer is no such JSON, or says something that cannot be true of the request.
    pub fn parse(answer: &[u8], request: &StoreRequest) -> Result<Self> {
        // The parser's own words would quote the answer.
        let place = |error: serde_json::Error| format!("line {}, column {}", error.line(), error.column());
        let outcome: Self = serde_json::from_slice(answer.trim_ascii())
            .map_err(|error| refused("it is no such answer").source(place(error)))?;
        outcome.check(request).map_err(|why| refused(&why))?;
        Ok(outcome.told_by_machine())
    }

    pub(super) fn add_sent(&mut self, share: Option<usize>, remote: &str, pushed: &PushReport) {
        let at = self.sent.iter().position(|sent| sent.share == share && sent.remote == remote);
        let at = at.unwrap_or_else(|| {
            let remote = remote.to_owned();
            self.sent.push(SentObjects { share, remote, objects: 0, bytes: 0, there: 0 });
            self.sent.len() - 1
        });
        let sent = &mut self.sent[at];
        sent.objects += pushed.objects as u64;
        sent.bytes += pushed.bytes;
        sent.there += pushed.there as u64;
    }

    /// Adds warnings up to [`WARNINGS_LIMIT`]. Where there are more, the last warning says how many.
    pub(super) fn warn(&mut self, all: Vec<String>) {
        let more = all.len().saturating_sub(WARNINGS_LIMIT - 1);
        let told = all.into_iter().take(WARNINGS_LIMIT - 1).map(|warning| cut(&warning));
        self.warnings.extend(told);
        self.warnings.extend((more > 0).then(|| format!("and {more} more of such")));
    }

    /// Whether the result can be true of this request. The error says why not.
    fn check(&self, request: &StoreRequest) -> Result<(), String> {
        let (given, wanted) = (self.pointers.len(), request.outputs().count());
        if given != wanted {
            return Err(format!("it tells of {given} outputs, and {wanted} were ordered"));
        }
        self.pointers.iter().try_for_each(check_pointer)?;
        let mut remotes = BTreeSet::new();
        for sent in &self.sent {
            if request.remote(sent.share, &sent.remote).is_none()
                || !remotes.insert((sent.share, &sent.remote))
            {
                return Err("it tells of a remote that was not ordered".to_owned());
            }
            if [sent.objects, sent.bytes, sent.there].iter().any(|number| *number > NUMBER_LIMIT) {
                return Err("a number in it is out of range".to_owned());
            }
        }
        let long = self.warnings.iter().any(|warning| warning.len() > WARNING_LIMIT_BYTES);
        if long || self.warnings.len() > WARNINGS_LIMIT {
            return Err("it has too many words".to_owned());
        }
        Ok(())
    }

    /// The result with warnings that cannot be taken for the pipe's own messages.
    pub(super) fn told_by_machine(mut self) -> Self {
        for warning in &mut self.warnings {
            let plain: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            *warning = format!("the machine says: {plain}");
        }
        self
    }
}

fn refused(why: &str) -> Error {
    Error::new(format!("the machine's answer of what DVC keeps was refused: {why}"))
        .kind(Kind::Publication)
        .hint("run again; if it stays, look whether the training tampers with the agent of its machine")
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(WARNING_LIMIT_BYTES)].to_owned()
}

/// Whether an output with this pointer can exist.
fn check_pointer(pointer: &Pointer) -> Result<(), String> {
    let Pointer { oid, size, files, executable } = pointer;
    if *size > NUMBER_LIMIT || files.is_some_and(|files| files > NUMBER_LIMIT) {
        return Err("a number in it is out of range".to_owned());
    }
    let fits = match files {
        Some(files) => oid.is_dir() && !executable && (*files > 0 || *size == 0),
        None => !oid.is_dir(),
    };
    let empty = match files {
        Some(files) => (*files == 0, "d751713988987e9331980363e24189ce.dir".to_owned()),
        None => (*size == 0, Md5::of(b"").to_string()),
    };
    if fits && empty.0 == (oid.to_string() == empty.1) {
        return Ok(());
    }
    Err("what it tells of an output does not fit together".to_owned())
}
