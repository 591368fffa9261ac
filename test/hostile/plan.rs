//! What a test has planned for the agent of a run, in a file that both read.

use serde::{Deserialize, Serialize};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The variable that leads to the plan's folder: one of those that a machine gets, and that nothing here
/// needs.
pub(crate) const VARIABLE: &str = "PYENV_ROOT";
const FILE: &str = "hostile.json";

/// What an agent does in place of one verb.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The verb that is not what it should be.
    pub(crate) verb: String,
    /// Which calls of it: the first such call, and how many.
    pub(crate) calls: (usize, usize),
    pub(crate) attack: Attack,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Attack {
    /// The real answer, changed as this seed says.
    Mutated(u64),
    /// The real answer, and these files with it, at these paths and with this text.
    Extended(Vec<(String, String)>),
    /// This answer.
    Says(String),
    /// This text over and over on standard output, as many bytes; and no end, but of a log.
    Floods(String, u64),
    /// The same on standard error, before the real answer.
    Shouts(u64),
    /// A list of files of this JSON, which is repeated as often.
    Lists(String, usize),
    /// A stream whose receiver would need much memory to unpack it.
    Inflates,
    /// Nothing, for ever.
    Hangs,
}

/// The folder of the plan, if there is one.
pub(crate) fn folder() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os(VARIABLE)?);
    folder.join(FILE).exists().then_some(folder)
}

impl Plan {
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join(FILE), serde_json::to_vec(self).unwrap()).unwrap();
    }

    pub(crate) fn read(folder: &Path) -> Self {
        serde_json::from_slice(&std::fs::read(folder.join(FILE)).unwrap()).unwrap()
    }

    /// Whether this call of a verb is one that is planned for.
    pub(crate) fn is_now(&self, verb: &str, folder: &Path) -> bool {
        if self.verb != verb {
            return false;
        }
        let calls = note(folder, "calls", "x");
        (self.calls.0..self.calls.0 + self.calls.1).contains(&calls)
    }
}

/// Adds a line to a file of the folder. Returns how many it has then.
pub(crate) fn note(folder: &Path, file: &str, line: &str) -> usize {
    let path = folder.join(file);
    let mut notes = std::fs::File::options().create(true).append(true).open(&path).unwrap();
    notes.write_all(format!("{}\n", line.replace('\n', " ")).as_bytes()).unwrap();
    notes_in(folder, file).len()
}

/// The lines of such a file.
pub(crate) fn notes_in(folder: &Path, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
