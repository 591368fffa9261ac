//! A copy of files as they were at one moment, though the training may go on to rename, remove and extend
//! them.
//!
//! All files are opened first. If each is then still what it was at the look, they were there together, and
//! what is renamed or removed later does not matter to those that are open. Only what is written in place
//! does, and is seen.

use super::stillness::{CopyPlan, FileStamp, SavedFile, SavedFiles, WatchedFile};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_transfer::EntryKind;

/// How many files are held open: a process may have 1024 as a rule. Any others must stay in their places.
const OPEN_FILES_LIMIT: usize = 500;

/// What is to be copied, and where to.
pub(super) struct Copying<'a> {
    pub(super) from: &'a Path,
    pub(super) to: &'a Path,
    pub(super) choice: &'a CopyPlan,
    pub(super) taken: &'a SavedFiles,
    pub(super) over: &'a AtomicBool,
}

/// How a copy went.
pub(super) enum Copied {
    /// All files were copied, with these hashes.
    Whole(Vec<String>),
    /// A file changed meanwhile.
    Changed,
    /// A file does not begin with what the last checkpoint holds of it.
    Rewritten(PathBuf),
}

impl Copying<'_> {
    /// Copies all files to disk for good.
    pub(super) fn run(&self) -> Result<Copied> {
        self.open()?.map_or(Ok(Copied::Changed), |open| self.copy_all(open))
    }

    /// Copies the files, of which these are open.
    pub(super) fn copy_all(&self, mut open: Vec<Option<File>>) -> Result<Copied> {
        let mut hashes = Vec::new();
        for (number, item) in self.choice.items.iter().enumerate() {
            let held = open.get_mut(number).and_then(Option::take);
            match self.copy(item, held)? {
                Copied::Whole(hash) => hashes.extend(hash),
                other => return Ok(other),
            }
        }
        let not_held = self.choice.items.iter().skip(OPEN_FILES_LIMIT);
        Ok(if not_held.into_iter().all(|item| self.is_in_place(item)) {
            Copied::Whole(hashes)
        } else {
            Copied::Changed
        })
    }

    /// Opens the files. None when they are not all there any more as they were.
    pub(super) fn open(&self) -> Result<Option<Vec<Option<File>>>> {
        let mut open = Vec::new();
        for item in self.choice.items.iter().take(OPEN_FILES_LIMIT) {
            let file = if item.is_link() { None } else { self.open_one(item)? };
            if file.is_none() && !item.is_link() {
                return Ok(None);
            }
            open.push(file);
        }
        Ok(self.choice.items.iter().all(|item| self.is_in_place(item)).then_some(open))
    }

    /// Opens a file; none if there is another one now, or none.
    fn open_one(&self, item: &WatchedFile) -> Result<Option<File>> {
        let file = match File::open(self.from.join(&item.path)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file.with_context(|| cannot_copy(item))?,
        };
        let metadata = file.metadata().with_context(|| cannot_copy(item))?;
        Ok(self.is_as_seen(item, &FileStamp::from(&metadata)).then_some(file))
    }

    fn is_as_seen(&self, item: &WatchedFile, now: &FileStamp) -> bool {
        if self.is_log(item) { item.stamp.is_continued_by(now) } else { item.stamp == *now }
    }

    fn is_log(&self, item: &WatchedFile) -> bool {
        self.choice.logs.contains(&item.path)
    }

    fn is_in_place(&self, item: &WatchedFile) -> bool {
        FileStamp::of_entry(self.from, &item.path, &item.entry).is_ok_and(|now| self.is_as_seen(item, &now))
    }

    fn copy(&self, item: &WatchedFile, held: Option<File>) -> Result<Copied> {
        let target = self.to.join(&item.path);
        fs::create_dir_all(target.parent().unwrap_or(self.to)).with_context(|| cannot_copy(item))?;
        if let EntryKind::Link { target: leads } = &item.entry.kind {
            let leads = leads.to_path();
            std::os::unix::fs::symlink(&leads, target).with_context(|| cannot_copy(item))?;
            return Ok(Copied::Whole(vec![hex(&blake3::hash(leads.as_os_str().as_bytes()))]));
        }
        let held = if held.is_some() { held } else { self.open_one(item)? };
        let Some(source) = held else { return Ok(Copied::Changed) };
        let copied = self.copy_bytes(item, &source, &target)?;
        let now = FileStamp::from(&source.metadata().with_context(|| cannot_copy(item))?);
        let is_same = if self.is_log(item) {
            item.stamp.is_continued_by(&now)
        } else {
            item.stamp.has_content_of(&now)
        };
        Ok(if is_same { copied } else { Copied::Changed })
    }

    /// Copies as many bytes as the file had at the look.
    fn copy_bytes(&self, item: &WatchedFile, mut source: &File, target: &Path) -> Result<Copied> {
        let what = || cannot_copy(item);
        let mut copy = File::create(target).with_context(what)?;
        let proof = self.taken.get(&item.path).filter(|taken| self.is_log(item) && taken.hash.is_some());
        let mut proof = proof.filter(|taken| taken.stamp.is_continued_by(&item.stamp));
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        let mut done = 0;
        loop {
            if proof.is_some_and(|taken| taken.stamp.bytes == done) && !proves(proof.take(), &hasher) {
                return Ok(Copied::Rewritten(item.path.clone()));
            }
            let until = proof.map_or(item.stamp.bytes, |taken| taken.stamp.bytes);
            let most = buffer.len().min(usize::try_from(until - done).unwrap_or(usize::MAX));
            if most == 0 {
                break;
            }
            let count = source.read(&mut buffer[..most]).with_context(what)?;
            if count == 0 {
                return Ok(Copied::Changed);
            }
            if self.over.load(Ordering::Relaxed) {
                return Err(Error::new("the machine ends").source(what()));
            }
            hasher.update(&buffer[..count]);
            copy.write_all(&buffer[..count]).with_context(what)?;
            done += count as u64;
        }
        let permissions = source.metadata().and_then(|data| copy.set_permissions(data.permissions()));
        permissions.and_then(|()| copy.sync_all()).with_context(what)?;
        Ok(Copied::Whole(vec![hex(&hasher.finalize())]))
    }
}

fn proves(taken: Option<&SavedFile>, begun: &blake3::Hasher) -> bool {
    taken.is_none_or(|taken| taken.hash.as_ref() == Some(&hex(&begun.finalize())))
}

fn hex(hash: &blake3::Hash) -> String {
    hash.to_hex().to_string()
}

fn cannot_copy(item: &WatchedFile) -> String {
    format!("cannot copy '{}' to a checkpoint", item.path.display())
}
