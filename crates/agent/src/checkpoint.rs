//! Checkpoints on the machine: a consistent copy of the training's files, complete or absent.
//!
//! A copy is made in a folder `N.partial`; its manifest, with the hashes, is written last; then the folder
//! becomes `N`.

use super::copying::{Copied, Copying};
use super::home::{Home, write_whole};
use super::stillness::{
    CopyPlan, FileStamp, HABIT_DURATION, SavedFile, SavedFiles, StillnessWatch, WaitStage, WatchedFile,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_protocol::CHECKPOINT_NUMBER_LIMIT;
use trainspot_transfer::{BundleEntry, EntryKind, Manifest, Pattern, find_with_links};

/// How often the files are looked at before a checkpoint is given up.
const LOOK_COUNT_LIMIT: u32 = 20;
/// The time between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The newest, and one in reserve while a reader may still be at it.
const KEPT_CHECKPOINTS: u64 = 2;
/// How many files are named of those that keep a checkpoint from being taken.
const NAMED_FILES_LIMIT: usize = 3;
/// How many files are named of those that are left out of a checkpoint. An answer with all of them could be
/// too long.
const NAMED_OMISSIONS_LIMIT: usize = 50;

/// The file of a checkpoint that lists and proves the others.
const MANIFEST_FILE: &str = "manifest.json";

/// The manifest of a complete checkpoint.
pub(super) fn manifest(checkpoint: &Path) -> Result<Manifest> {
    let bytes = fs::read(checkpoint.join(MANIFEST_FILE)).context("cannot read a checkpoint's manifest")?;
    serde_json::from_slice(&bytes).context("cannot read a checkpoint's manifest")
}

/// The folder of a checkpoint's files.
pub(super) fn files(checkpoint: &Path) -> std::path::PathBuf {
    checkpoint.join("files")
}

/// The number of the newest complete checkpoint.
pub(super) fn newest(home: &Home) -> Option<u64> {
    numbers(home).max()
}

/// A training may make folders of its own here: a number that no other could follow is none.
fn numbers(home: &Home) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(home.checkpoints()).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|number| *number < CHECKPOINT_NUMBER_LIMIT)
}

/// Takes checkpoints of one training.
pub(super) struct CheckpointWriter {
    home: Home,
    patterns: Vec<String>,
    /// The folders that the patterns name before their first wildcard.
    bases: Vec<PathBuf>,
    /// The files at the look of the last checkpoint: unless they change, there is nothing to save.
    last: Vec<WatchedFile>,
    /// The files of the last checkpoint.
    taken: SavedFiles,
    /// Nothing changes the files any more.
    assumes_final: bool,
    longest: Duration,
    problem: Option<String>,
    left_out: Option<String>,
    /// Set when no checkpoint is of use any more, and none must be written.
    over: Arc<AtomicBool>,
}

impl CheckpointWriter {
    pub(super) fn new(home: &Home, patterns: &[String], over: Arc<AtomicBool>) -> Self {
        let parsed = patterns.iter().filter_map(|pattern| Pattern::parse(pattern).ok());
        Self {
            home: home.clone(),
            patterns: patterns.to_vec(),
            bases: parsed.map(|pattern| pattern.start().to_owned()).collect(),
            last: Vec::new(),
            taken: SavedFiles::new(),
            assumes_final: false,
            longest: Duration::ZERO,
            problem: None,
            left_out: None,
            over,
        }
    }

    /// Takes no checkpoint of the files as they are now: they were restored from one.
    pub(super) fn mark_restored(&mut self) {
        self.last = self.look().unwrap_or_default();
        let known = |item: &WatchedFile| (item.path.clone(), SavedFile { stamp: item.stamp, hash: None });
        self.taken = self.last.iter().map(known).collect();
    }

    /// Takes the files as final: the training is over, and its files need no more time to rest.
    pub(super) fn assume_final(&mut self) {
        self.assumes_final = true;
    }

    /// How long the longest copy took, without the wait for files to rest.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Which files the last checkpoint lacks because they were not whole, if there are any.
    pub(super) fn left_out(&self) -> Option<&str> {
        self.left_out.as_deref()
    }

    /// Takes a checkpoint, and remembers why it could not.
    pub(super) fn attempt(&mut self) {
        self.problem = self.take().err().map(|error| error.render());
        if let Some(problem) = &self.problem {
            tracing::warn!("no checkpoint: {problem}");
        }
    }

    /// Takes one, unless there is nothing to save or nothing changed since the last.
    ///
    /// # Errors
    /// A disk that is full; files that never rest. The training goes on, and so do later checkpoints.
    pub(super) fn take(&mut self) -> Result<Option<u64>> {
        let work = self.home.work();
        let bases = self.bases.clone();
        let mut watch = StillnessWatch::new(&work, &bases);
        let (began, mut restless) = (Instant::now(), Vec::new());
        for look in 1..=LOOK_COUNT_LIMIT {
            let items = self.look()?;
            if items.is_empty() || items == self.last || self.over.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let start = Instant::now();
            watch.look(&items, start, SystemTime::now());
            let waited = match look {
                LOOK_COUNT_LIMIT => WaitStage::LastLook,
                _ if began.elapsed() >= HABIT_DURATION => WaitStage::HabitsKnown,
                _ => WaitStage::Early,
            };
            let choice = if self.assumes_final {
                Ok(CopyPlan::all(items.clone()))
            } else {
                watch.choose(items.clone(), &self.taken, start, waited)
            };
            match choice {
                Ok(choice) => {
                    if let Some(number) = self.copy(&choice)? {
                        self.longest = self.longest.max(start.elapsed());
                        self.last = items;
                        return Ok(Some(number));
                    }
                }
                Err(names) => restless = names,
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Err(never_rested(&restless))
    }

    /// Copies what was chosen, unless it changes meanwhile.
    fn copy(&mut self, choice: &CopyPlan) -> Result<Option<u64>> {
        let number = newest(&self.home).map_or(1, |number| number + 1);
        let partial = self.home.checkpoints().join(format!("{number}.partial"));
        fs::remove_dir_all(&partial).ok();
        let filled = self.fill(&partial, choice);
        let Ok(Copied::Whole(hashes)) = filled else {
            // The training may need the room.
            fs::remove_dir_all(&partial).ok();
            return match filled? {
                // It only seemed to grow.
                Copied::Rewritten(path) => {
                    self.taken.entry(path).and_modify(|taken| taken.hash = None);
                    Ok(None)
                }
                _ => Ok(None),
            };
        };
        fs::rename(&partial, self.home.checkpoints().join(number.to_string()))
            .context("cannot complete a checkpoint")?;
        let taken = |(item, hash): (&WatchedFile, _)| {
            (item.path.clone(), SavedFile { stamp: item.stamp, hash: Some(hash) })
        };
        self.taken = choice.items.iter().zip(hashes).map(taken).collect();
        self.left_out =
            (!choice.left_out.is_empty()).then(|| first_of(&choice.left_out, NAMED_OMISSIONS_LIMIT));
        self.prune(number);
        Ok(Some(number))
    }

    /// Copies the files, then writes the manifest.
    fn fill(&self, partial: &Path, choice: &CopyPlan) -> Result<Copied> {
        let copying = Copying {
            from: &self.home.work(),
            to: &files(partial),
            choice,
            taken: &self.taken,
            over: &self.over,
        };
        let copied = copying.run()?;
        if let Copied::Whole(hashes) = &copied {
            let entries = choice.items.iter().map(|item| item.entry.clone()).collect();
            let manifest = serde_json::to_vec(&Manifest { entries, hashes: hashes.clone() });
            let manifest = manifest.context("cannot write a checkpoint's manifest")?;
            write_whole(&partial.join(MANIFEST_FILE), &manifest)?;
        }
        Ok(copied)
    }

    fn prune(&self, newest: u64) {
        for number in numbers(&self.home).filter(|number| number + KEPT_CHECKPOINTS <= newest) {
            let old = self.home.checkpoints().join(number.to_string());
            // It loses its name first: half of it must not count.
            let partial = old.with_extension("partial");
            fs::rename(&old, &partial).and_then(|()| fs::remove_dir_all(&partial)).ok();
        }
    }

    /// The files as they are now. One that vanishes at this moment looks as no file does.
    fn look(&self) -> Result<Vec<WatchedFile>> {
        let work = self.home.work();
        let item = |mut entry: BundleEntry| {
            let path = entry.path.to_path();
            let stamp = FileStamp::of_entry(&work, &path, &entry).unwrap_or_default();
            if let EntryKind::File { bytes, .. } = &mut entry.kind {
                *bytes = stamp.bytes;
            }
            WatchedFile { path, entry, stamp }
        };
        Ok(find_with_links(&work, &self.patterns)?.into_iter().map(item).collect())
    }
}

/// The first names of a list that may be long, and whether there are more.
fn first_of(files: &[String], most: usize) -> String {
    let more = if files.len() > most { ", and more" } else { "" };
    files[..files.len().min(most)].join(", ") + more
}

fn never_rested(files: &[String]) -> Error {
    let names = first_of(files, NAMED_FILES_LIMIT);
    Error::new(format!("the files of the checkpoint never rested long enough to be copied: {names}"))
        .hint("write a checkpoint under another name, then rename it; or leave out of CHECKPOINTS what is not needed to go on")
}

#[cfg(test)]
mod tests;
