//! Which files of a training may be copied at a moment, though the training goes on.
//!
//! A file that rests is whole, and so is one that was renamed after it was last written. A log, which only
//! grows, is taken as far as it came. Whatever else changes may be half written. A moment without such a file
//! is waited for; when none comes, the files that are surely not needed to go on are left out, and any other
//! one keeps the checkpoint from being taken: half of a state is worse than an older one.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};
use trainspot_transfer::{BundleEntry, EntryKind};

/// A file that was written more recently may be half written.
pub(super) const REST_DURATION: Duration = Duration::from_secs(1);
/// How long a file must be seen to grow, or to be written again and again, before that counts as what it
/// always does.
pub(super) const HABIT_DURATION: Duration = Duration::from_secs(5);
/// A file that grows faster is no log, but may be a large checkpoint that is being written.
const LOG_RATE_LIMIT_BYTES_PER_SECOND: u64 = 1 << 20;
/// A file of at most this size is written in an instant: one that never rests is written again and again.
const SMALL_FILE_BYTES: u64 = 1 << 20;
/// A new file that never rested so far may just have come.
const NEW_FILE_AGE_LIMIT: Duration = Duration::from_secs(2);
/// The largest file that is read for the name of the checkpoint to go on from.
const POINTER_LIMIT_BYTES: u64 = 4 << 10;
/// A file's name is looked for in texts only if it is this long: a shorter one would be found in any text.
const NAME_MINIMUM_BYTES: usize = 4;

/// What the file system says of a file at one look: two equal stamps mean an unchanged file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FileStamp {
    device: u64,
    inode: u64,
    pub(super) bytes: u64,
    modified: (i64, i64),
    /// The time of the inode's change: nobody can set it back.
    changed: (i64, i64),
}

impl From<&Metadata> for FileStamp {
    fn from(data: &Metadata) -> Self {
        Self {
            device: data.dev(),
            inode: data.ino(),
            bytes: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        }
    }
}

impl FileStamp {
    /// The stamp of an entry's file or link as it is now.
    pub(super) fn of_entry(root: &Path, path: &Path, entry: &BundleEntry) -> std::io::Result<Self> {
        let path = root.join(path);
        let is_link = matches!(entry.kind, EntryKind::Link { .. });
        let metadata = if is_link { path.symlink_metadata() } else { path.metadata() };
        metadata.map(|metadata| Self::from(&metadata))
    }

    fn is_whole(&self, now: SystemTime) -> bool {
        // Each write sets both times to the same moment; a rename sets one of them only.
        let renamed = self.bytes > 0 && self.changed > self.modified;
        // A file is opened, and so emptied, before it is written, and what is to be written may take a while.
        let quiet = if self.bytes == 0 { HABIT_DURATION } else { REST_DURATION };
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let modified = Duration::new(
            u64::try_from(self.modified.0).unwrap_or(0),
            u32::try_from(self.modified.1).unwrap_or(0),
        );
        // A time to come was set on purpose, or by a clock that was wrong: it says nothing.
        renamed || modified > now || now.saturating_sub(modified) >= quiet
    }

    /// Whether this is the same file, and not shorter.
    pub(super) fn is_continued_by(&self, later: &Self) -> bool {
        (self.device, self.inode) == (later.device, later.inode) && self.bytes <= later.bytes
    }

    /// Whether an open file has the same content, wherever it was renamed to meanwhile.
    pub(super) fn has_content_of(&self, later: &Self) -> bool {
        (self.bytes, self.modified) == (later.bytes, later.modified)
    }
}

/// An entry of the checkpoint, and the stamp of its file at a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WatchedFile {
    pub(super) path: PathBuf,
    pub(super) entry: BundleEntry,
    pub(super) stamp: FileStamp,
}

impl WatchedFile {
    pub(super) fn is_link(&self) -> bool {
        matches!(self.entry.kind, EntryKind::Link { .. })
    }
}

/// A file as the last checkpoint holds it.
pub(super) struct SavedFile {
    pub(super) stamp: FileStamp,
    /// The hash of what the checkpoint holds; none when the file does not begin with that any more.
    pub(super) hash: Option<String>,
}

/// The files of the last checkpoint.
pub(super) type SavedFiles = BTreeMap<PathBuf, SavedFile>;

/// The files that a checkpoint copies, and how.
#[derive(Debug)]
pub(super) struct CopyPlan {
    pub(super) items: Vec<WatchedFile>,
    /// Logs: only their beginning is copied, up to the size that was seen.
    pub(super) logs: BTreeSet<PathBuf>,
    /// The files that are left out, each with the reason in words.
    pub(super) left_out: Vec<String>,
}

impl CopyPlan {
    /// Copies every file whole: nothing changes these files any more.
    pub(super) fn all(items: Vec<WatchedFile>) -> Self {
        Self { items, logs: BTreeSet::new(), left_out: Vec::new() }
    }
}

/// Why a checkpoint can do without a file that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OmissionReason {
    Rewritten,
    Unfinished,
}

impl OmissionReason {
    fn in_words(self) -> &'static str {
        match self {
            Self::Rewritten => "written again and again",
            Self::Unfinished => "not finished",
        }
    }
}

/// How long a moment of rest has been waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum WaitStage {
    /// Too short to know what a file always does.
    Early,
    /// Long enough to know what each file always does.
    HabitsKnown,
    /// As long as the checkpoint can wait: there is no later look.
    LastLook,
}

/// The history of a file over several looks.
struct FileHistory {
    appeared: Instant,
    /// Since when it has only grown, and its size then.
    grows: (Instant, u64),
    /// Since when it has never been whole.
    restless: Option<Instant>,
    stamp: FileStamp,
}

/// Looks at the files of one checkpoint that is to be taken.
pub(super) struct StillnessWatch<'a> {
    root: &'a Path,
    /// The folders that the user named.
    bases: &'a [PathBuf],
    tracks: BTreeMap<PathBuf, FileHistory>,
}

impl<'a> StillnessWatch<'a> {
    pub(super) fn new(root: &'a Path, bases: &'a [PathBuf]) -> Self {
        Self { root, bases, tracks: BTreeMap::new() }
    }

    /// Takes in the stamps of one look.
    pub(super) fn look(&mut self, items: &[WatchedFile], now: Instant, time: SystemTime) {
        for item in items {
            let stamp = item.stamp;
            let track = self.tracks.entry(item.path.clone()).or_insert(FileHistory {
                appeared: now,
                grows: (now, stamp.bytes),
                restless: None,
                stamp,
            });
            let rewritten = stamp.bytes == track.stamp.bytes && stamp.modified != track.stamp.modified;
            if rewritten || !track.stamp.is_continued_by(&stamp) {
                track.grows = (now, stamp.bytes);
            }
            track.stamp = stamp;
            let whole = item.is_link() || stamp.is_whole(time);
            track.restless = if whole { None } else { track.restless.or(Some(now)) };
        }
    }

    /// The files of the last look that make a checkpoint; or the names of the files that keep the checkpoint
    /// from being taken.
    pub(super) fn choose(
        &self,
        items: Vec<WatchedFile>,
        known: &SavedFiles,
        now: Instant,
        waited: WaitStage,
    ) -> Result<CopyPlan, Vec<String>> {
        let is_restless =
            |item: &&WatchedFile| self.track(&item.path).is_some_and(|track| track.restless.is_some());
        let (logs, restless): (Vec<&WatchedFile>, Vec<&WatchedFile>) =
            items.iter().filter(is_restless).partition(|item| self.is_log(item, known, now));
        let logs: BTreeSet<PathBuf> = logs.into_iter().map(|item| item.path.clone()).collect();
        let (mut out, mut blocking) = (BTreeMap::new(), Vec::new());
        for item in restless {
            match self.dispensable(item, known, now, waited) {
                Some((path, lack)) => _ = out.insert(path, lack),
                None => blocking.push(format!("'{}'", item.path.display())),
            }
        }
        if !blocking.is_empty() {
            return Err(blocking);
        }
        let left_out = out.iter().map(|(path, lack)| format!("'{}' ({})", path.display(), lack.in_words()));
        let left_out: Vec<String> = left_out.collect();
        let is_out = |item: &WatchedFile| item.path.ancestors().any(|above| out.contains_key(above));
        let mut items: Vec<WatchedFile> = items.into_iter().filter(|item| !is_out(item)).collect();
        if !out.is_empty() {
            let is_spare = |item: &WatchedFile| item.is_link() || logs.contains(&item.path);
            let points_out =
                |item: &WatchedFile| out.iter().any(|(out, lack)| self.points_to(item, out, *lack));
            // Logs alone are nothing to go on from; what points to an unfinished checkpoint is worse than an
            // older one.
            if items.iter().all(is_spare) || items.iter().any(points_out) {
                return Err(left_out);
            }
            self.drop_dangling(&mut items);
        }
        Ok(CopyPlan { items, logs, left_out })
    }

    /// Drops links to what is left out.
    fn drop_dangling(&self, items: &mut Vec<WatchedFile>) {
        let files: BTreeSet<PathBuf> =
            items.iter().filter(|item| !item.is_link()).map(|item| item.path.clone()).collect();
        let holds =
            |place: PathBuf| files.range(place.clone()..).next().is_some_and(|file| file.starts_with(place));
        items.retain(|item| !item.is_link() || self.leads_to(item).is_some_and(holds));
    }

    /// Where a link leads in the end, below the workspace.
    fn leads_to(&self, link: &WatchedFile) -> Option<PathBuf> {
        let real = self.root.join(&link.path).canonicalize().ok()?;
        real.strip_prefix(self.root.canonicalize().ok()?).ok().map(Path::to_owned)
    }

    fn track(&self, path: &Path) -> Option<&FileHistory> {
        self.tracks.get(path)
    }

    /// Whether a file only grows. Either it begins with what the last checkpoint holds of it, which is proved
    /// when it is copied, or it was seen to grow for long, and slowly.
    fn is_log(&self, item: &WatchedFile, known: &SavedFiles, now: Instant) -> bool {
        let Some(track) = self.track(&item.path) else { return false };
        let begins = |taken: &SavedFile| taken.hash.is_some() && taken.stamp.is_continued_by(&item.stamp);
        if known.get(&item.path).is_some_and(begins) {
            return true;
        }
        let (since, bytes) = track.grows;
        let (time, grown) = (now.saturating_duration_since(since), item.stamp.bytes - bytes);
        time >= HABIT_DURATION && grown > 0 && grown / LOG_RATE_LIMIT_BYTES_PER_SECOND <= time.as_secs()
    }

    /// The part of the checkpoint that can do without a file that is not whole, and why; none if the file may
    /// be needed.
    fn dispensable(
        &self,
        item: &WatchedFile,
        known: &SavedFiles,
        now: Instant,
        waited: WaitStage,
    ) -> Option<(PathBuf, OmissionReason)> {
        let track = self.track(&item.path)?;
        let since = |moment: Instant| now.saturating_duration_since(moment);
        let always = track.restless.is_some_and(|moment| since(moment) >= HABIT_DURATION);
        if waited >= WaitStage::HabitsKnown && always && item.stamp.bytes <= SMALL_FILE_BYTES {
            return Some((item.path.clone(), OmissionReason::Rewritten));
        }
        if waited < WaitStage::LastLook {
            return None;
        }
        if let Some(folder) = self.new_folder(&item.path, known) {
            return Some((folder.to_owned(), OmissionReason::Unfinished));
        }
        let new = since(track.appeared) < NEW_FILE_AGE_LIMIT && !known.contains_key(&item.path);
        new.then(|| (item.path.clone(), OmissionReason::Unfinished))
    }

    /// The topmost folder above a file that came since the last checkpoint, below a folder that the user
    /// named. Its files belong together, as those of `checkpoint-500` do.
    fn new_folder<'p>(&self, path: &'p Path, known: &SavedFiles) -> Option<&'p Path> {
        let base =
            self.bases.iter().filter(|base| path.starts_with(base)).max_by_key(|base| base.iter().count())?;
        let folders =
            path.ancestors().skip(1).take_while(|folder| *folder != base && folder.starts_with(base));
        let is_new = |folder: &&Path| !known.keys().any(|known| known.starts_with(folder));
        folders.filter(is_new).last()
    }

    /// Whether a link leads to what is not finished, or a small file names it.
    fn points_to(&self, item: &WatchedFile, out: &Path, lack: OmissionReason) -> bool {
        if lack != OmissionReason::Unfinished {
            return false;
        }
        if item.is_link() {
            return self.leads_to(item).is_some_and(|place| place.starts_with(out));
        }
        let name = if self.track(out).is_some() { out.file_stem() } else { out.file_name() };
        let name = name.map(OsStr::as_bytes).unwrap_or_default();
        let names = |text: Vec<u8>| text.windows(name.len()).any(|part| part == name);
        item.stamp.bytes <= POINTER_LIMIT_BYTES
            && name.len() >= NAME_MINIMUM_BYTES
            && std::fs::read(self.root.join(&item.path)).is_ok_and(names)
    }
}

#[cfg(test)]
mod tests;
