//! Checkpoints on the machine: a consistent copy of the training's files, complete or absent.
//!
//! A copy is made in a folder `N.partial`; its manifest, with the hashes, is written last; then the folder becomes `N`.

use super::home::{Home, write_whole};
use crate::error::{Context as _, Error, Result};
use crate::transfer::{Entry, find};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Files that changed more recently may be half written.
const QUIET: Duration = Duration::from_secs(1);
/// How often to look again for a moment in which nothing changes.
const ATTEMPTS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(500);
/// The newest, and one in reserve while a reader may still be at it.
const KEPT: u64 = 2;

/// What a checkpoint holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    /// Its files, relative to the workspace.
    pub entries: Vec<Entry>,
    /// The BLAKE3 hash of each, in hexadecimal.
    pub hashes: Vec<String>,
}

impl Manifest {
    const FILE: &'static str = "manifest.json";

    /// The manifest of a complete checkpoint.
    pub(super) fn read(checkpoint: &Path) -> Result<Self> {
        let bytes = fs::read(checkpoint.join(Self::FILE)).context("cannot read a checkpoint's manifest")?;
        serde_json::from_slice(&bytes).context("cannot read a checkpoint's manifest")
    }
}

/// The folder of a checkpoint's files.
pub(super) fn files(checkpoint: &Path) -> std::path::PathBuf {
    checkpoint.join("files")
}

/// The number of the newest complete checkpoint.
pub(super) fn newest(home: &Home) -> Option<u64> {
    numbers(home).max()
}

fn numbers(home: &Home) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(home.checkpoints()).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// What tells whether a file changed. The time is that of the inode's change: nobody can set it back.
type Mark = (u64, u64, i64, i64);

/// Takes checkpoints of one training.
pub(super) struct Taker {
    home: Home,
    patterns: Vec<String>,
    last: Vec<Mark>,
    /// Nothing changes the files any more.
    settled: bool,
    longest: Duration,
    problem: Option<String>,
    /// Set when no checkpoint is of use any more, and none must be written.
    over: Arc<AtomicBool>,
}

impl Taker {
    pub(super) fn new(home: &Home, patterns: &[String], over: Arc<AtomicBool>) -> Self {
        Self {
            home: home.clone(),
            patterns: patterns.to_vec(),
            last: Vec::new(),
            settled: false,
            longest: Duration::ZERO,
            problem: None,
            over,
        }
    }

    /// Takes none of the files as they are now: they were restored from one.
    pub(super) fn skip(&mut self) {
        self.last = self.look().map(|(_, marks)| marks).unwrap_or_default();
    }

    /// Says that the training is over, and its files need no more time to rest.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// How long the longest copy took, without the wait for files to rest.
    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// Why the last attempt failed, if it did.
    pub(super) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Takes one, and remembers why it could not.
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
        for _ in 0..ATTEMPTS {
            let (entries, marks) = self.look()?;
            if entries.is_empty() || marks == self.last || self.over.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let start = Instant::now();
            if (self.settled || self.quiet(&entries))
                && let Some(number) = self.copy(&entries, &marks)?
            {
                self.longest = self.longest.max(start.elapsed());
                self.last = marks;
                return Ok(Some(number));
            }
            std::thread::sleep(BETWEEN);
        }
        Err(Error::new("the files of the checkpoint never rested long enough to be copied")
            .hint("write a checkpoint under another name, then rename it"))
    }

    fn copy(&self, entries: &[Entry], marks: &[Mark]) -> Result<Option<u64>> {
        let number = newest(&self.home).map_or(1, |number| number + 1);
        let partial = self.home.checkpoints().join(format!("{number}.partial"));
        fs::remove_dir_all(&partial).ok();
        let copied = self.fill(&partial, entries);
        // When one was renamed or removed meanwhile, it was not a moment of rest.
        let rested = self.look().is_ok_and(|(now, then)| now == entries && then == marks);
        if copied.is_err() || !rested {
            // The training may need the room.
            fs::remove_dir_all(&partial).ok();
            return if rested { copied.map(|()| None) } else { Ok(None) };
        }
        fs::rename(&partial, self.home.checkpoints().join(number.to_string()))
            .context("cannot complete a checkpoint")?;
        self.prune(number);
        Ok(Some(number))
    }

    /// Copies the files, then writes the manifest.
    fn fill(&self, partial: &Path, entries: &[Entry]) -> Result<()> {
        let copy =
            |entry: &Entry| copy_file(&self.home.work(), &files(partial), &entry.path.to_path(), &self.over);
        let hashes = entries.iter().map(copy).collect::<Result<_>>()?;
        let manifest = serde_json::to_vec(&Manifest { entries: entries.to_vec(), hashes });
        write_whole(&partial.join(Manifest::FILE), &manifest.context("cannot write a checkpoint's manifest")?)
    }

    fn prune(&self, newest: u64) {
        for number in numbers(&self.home).filter(|number| number + KEPT <= newest) {
            let old = self.home.checkpoints().join(number.to_string());
            // It loses its name first: half of it must not count.
            let partial = old.with_extension("partial");
            fs::rename(&old, &partial).and_then(|()| fs::remove_dir_all(&partial)).ok();
        }
    }

    /// The files, and their marks. One that vanishes at this moment has a mark that no file has.
    fn look(&self) -> Result<(Vec<Entry>, Vec<Mark>)> {
        let entries = find(&self.home.work(), &self.patterns)?.files;
        let mark = |entry: &Entry| {
            let metadata = fs::metadata(self.home.work().join(entry.path.to_path()));
            metadata.map_or((0, 0, 0, 0), |data| (data.ino(), data.len(), data.ctime(), data.ctime_nsec()))
        };
        let marks = entries.iter().map(mark).collect();
        Ok((entries, marks))
    }

    fn quiet(&self, entries: &[Entry]) -> bool {
        let modified = |entry: &Entry| fs::metadata(self.home.work().join(entry.path.to_path()))?.modified();
        let now = SystemTime::now();
        // A time to come was set on purpose, or by a clock that was wrong: it says nothing.
        let rests = |time| now.duration_since(time).map_or(true, |age| age >= QUIET);
        entries.iter().all(|entry| modified(entry).is_ok_and(rests))
    }
}

/// Copies one file to disk for good, and returns its hash.
fn copy_file(from: &Path, to: &Path, path: &Path, over: &AtomicBool) -> Result<String> {
    let what = || format!("cannot copy '{}' to a checkpoint", path.display());
    let target = to.join(path);
    fs::create_dir_all(target.parent().unwrap_or(to)).with_context(what)?;
    let mut source = File::open(from.join(path)).with_context(what)?;
    let mut copy = File::create(&target).with_context(what)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = source.read(&mut buffer).with_context(what)?;
        if count == 0 {
            break;
        }
        if over.load(Ordering::Relaxed) {
            return Err(Error::new("the machine ends").source(what()));
        }
        hasher.update(&buffer[..count]);
        std::io::Write::write_all(&mut copy, &buffer[..count]).with_context(what)?;
    }
    let permissions = source.metadata().and_then(|metadata| copy.set_permissions(metadata.permissions()));
    permissions.and_then(|()| copy.sync_all()).with_context(what)?;
    Ok(hasher.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path().to_owned());
        home.create().unwrap();
        (folder, home)
    }

    fn taker(home: &Home, pattern: &str) -> Taker {
        Taker::new(home, &[pattern.to_owned()], Arc::default())
    }

    fn write(home: &Home, name: &str, text: &str) {
        let path = home.work().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(100);
        File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }

    #[test]
    fn what_was_restored_is_not_saved_again() {
        let (_folder, home) = home();
        write(&home, "state/a.pt", "one");
        let mut taker = taker(&home, "state/*.pt");
        taker.skip();
        assert_eq!(taker.take().unwrap(), None);
        write(&home, "state/a.pt", "two");
        assert_eq!(taker.take().unwrap(), Some(1));
    }

    #[test]
    fn a_checkpoint_holds_the_files_and_their_hashes() {
        let (_folder, home) = home();
        write(&home, "state/a.pt", "one");
        write(&home, "state/b.pt", "two");
        let mut taker = taker(&home, "state/*.pt");
        assert_eq!(taker.take().unwrap(), Some(1));
        let checkpoint = home.checkpoints().join("1");
        let manifest = Manifest::read(&checkpoint).unwrap();
        assert_eq!(
            manifest.hashes,
            [blake3::hash(b"one"), blake3::hash(b"two")].map(|hash| hash.to_hex().to_string())
        );
        assert_eq!(fs::read(files(&checkpoint).join("state/b.pt")).unwrap(), b"two");
    }

    #[test]
    fn only_changes_make_a_new_one_and_two_are_kept() {
        let (_folder, home) = home();
        let mut taker = taker(&home, "s");
        assert_eq!(taker.take().unwrap(), None);
        for number in 1..=4 {
            write(&home, "s", &number.to_string().repeat(number));
            assert_eq!(taker.take().unwrap(), Some(number as u64));
            assert_eq!(taker.take().unwrap(), None);
        }
        let mut left: Vec<u64> = numbers(&home).collect();
        left.sort_unstable();
        assert_eq!(left, [3, 4]);
    }

    #[test]
    fn a_file_that_is_being_written_is_waited_for_unless_the_training_is_over() {
        let (_folder, home) = home();
        fs::write(home.work().join("s"), "half").unwrap();
        let start = Instant::now();
        assert_eq!(taker(&home, "s").take().unwrap(), Some(1));
        assert!(start.elapsed() + Duration::from_millis(50) >= QUIET);
        fs::write(home.work().join("s"), "its last words").unwrap();
        let (start, mut taker) = (Instant::now(), taker(&home, "s"));
        taker.settle();
        assert_eq!(taker.take().unwrap(), Some(2));
        assert!(start.elapsed() < QUIET);
    }

    #[test]
    fn a_partial_copy_does_not_count() {
        let (_folder, home) = home();
        fs::create_dir_all(home.checkpoints().join("7.partial")).unwrap();
        assert_eq!(newest(&home), None);
    }

    #[test]
    fn a_change_that_hides_its_time_is_seen() {
        let (_folder, home) = home();
        let mut taker = taker(&home, "s");
        write(&home, "s", "one");
        let before = fs::metadata(home.work().join("s")).unwrap().modified().unwrap();
        assert_eq!(taker.take().unwrap(), Some(1));
        fs::write(home.work().join("s"), "two").unwrap();
        File::options().write(true).open(home.work().join("s")).unwrap().set_modified(before).unwrap();
        assert_eq!(taker.take().unwrap(), Some(2));
    }

    #[test]
    fn nothing_is_written_once_it_is_over() {
        let (_folder, home) = home();
        write(&home, "s", "one");
        let mut taker = taker(&home, "s");
        taker.over.store(true, Ordering::Relaxed);
        assert_eq!(taker.take().unwrap(), None);
        assert!(taker.fill(&home.checkpoints().join("1.partial"), &taker.look().unwrap().0).is_err());
    }
}
