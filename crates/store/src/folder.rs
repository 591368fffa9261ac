//! A folder as a store: for machines of this host, and for tests.

use crate::{
    ListedObject, ObjectKey, ObjectVersion, StoredObject, WriteCondition, WriteOutcome, too_long, too_many,
};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;
use trainspot_base::error::{Context as _, Result};
use walkdir::WalkDir;

/// The file whose lock every write holds. Its name is no object's, since it begins with a dot.
const LOCK_NAME: &str = ".lock";
/// What names of files begin with that are not whole yet.
const DRAFT_PREFIX: &str = ".draft-";

/// A folder that keeps objects as files.
#[derive(Clone, Debug)]
pub struct FolderStore {
    root: PathBuf,
}

impl FolderStore {
    pub(super) fn open(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) async fn read(&self, key: &ObjectKey, limit_bytes: usize) -> Result<Option<StoredObject>> {
        let (path, what) = self.place("read", key);
        blocking(move || {
            let Some(file) = open(&path).context(&what)? else { return Ok(None) };
            let mut bytes = Vec::new();
            (&file).take(limit_bytes as u64 + 1).read_to_end(&mut bytes).context(&what)?;
            if bytes.len() > limit_bytes {
                return Err(too_long(&what, limit_bytes as u64));
            }
            let metadata = file.metadata().context(&what)?;
            let age =
                SystemTime::now().duration_since(metadata.modified().context(&what)?).unwrap_or_default();
            Ok(Some(StoredObject { version: version(&metadata), bytes, age }))
        })
        .await
    }

    pub(super) async fn fetch(
        &self,
        key: &ObjectKey,
        mut into: File,
        limit_bytes: u64,
    ) -> Result<Option<u64>> {
        let (path, what) = self.place("read", key);
        blocking(move || {
            let Some(mut file) = open(&path).context(&what)? else { return Ok(None) };
            if file.metadata().context(&what)?.len() > limit_bytes {
                return Err(too_long(&what, limit_bytes));
            }
            std::io::copy(&mut file, &mut into).map(Some).context(&what)
        })
        .await
    }

    pub(super) async fn write(
        &self,
        key: &ObjectKey,
        bytes: Vec<u8>,
        condition: WriteCondition,
    ) -> Result<WriteOutcome> {
        let (path, what) = self.place("write", key);
        let root = self.root.clone();
        blocking(move || {
            let mut draft = draft(&path).context(&what)?;
            draft.write_all(&bytes).context(&what)?;
            let _lock = lock(&root).context(&what)?;
            let holds = match &condition {
                WriteCondition::None => true,
                WriteCondition::Absent => open(&path).context(&what)?.is_none(),
                WriteCondition::Unchanged(expected) => {
                    current(&path).context(&what)?.as_ref() == Some(expected)
                }
            };
            if !holds {
                return Ok(WriteOutcome::ConditionFailed);
            }
            Ok(WriteOutcome::Written(version(&place(draft, &path).context(&what)?)))
        })
        .await
    }

    pub(super) async fn send(&self, key: &ObjectKey, file: &Path) -> Result<()> {
        let (path, what) = self.place("write", key);
        let (root, file) = (self.root.clone(), file.to_owned());
        blocking(move || {
            let mut draft = draft(&path).context(&what)?;
            std::io::copy(&mut File::open(&file).context(&what)?, &mut draft).context(&what)?;
            let _lock = lock(&root).context(&what)?;
            place(draft, &path).map(drop).context(&what)
        })
        .await
    }

    pub(super) async fn list(&self, prefix: &ObjectKey, limit: usize) -> Result<Vec<ListedObject>> {
        let (path, what) = self.place("list", prefix);
        let root = self.root.clone();
        blocking(move || {
            let mut found = Vec::new();
            for entry in WalkDir::new(&path) {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error)
                        if error.io_error().is_some_and(|error| error.kind() == ErrorKind::NotFound) =>
                    {
                        continue;
                    }
                    Err(error) => return Err(error).context(&what),
                };
                let name = entry.path().strip_prefix(&root).ok().and_then(Path::to_str);
                // Drafts, and what people put there, have names that are no keys.
                let Some(Ok(key)) = name.map(ObjectKey::new) else { continue };
                if !entry.file_type().is_file() {
                    continue;
                }
                if found.len() == limit {
                    return Err(too_many(&what, limit));
                }
                found.push(ListedObject { key, size: entry.metadata().context(&what)?.len() });
            }
            found.sort_by(|one, other| one.key.cmp(&other.key));
            Ok(found)
        })
        .await
    }

    pub(super) async fn delete(&self, key: &ObjectKey) -> Result<()> {
        let (path, what) = self.place("remove", key);
        blocking(move || match std::fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            removed => removed.context(&what),
        })
        .await
    }

    /// Removes drafts. One that is being written has an open file, and fails to get its name.
    pub(super) async fn end_unfinished(&self, prefix: &ObjectKey) -> Result<()> {
        let (path, what) = self.place("clear", prefix);
        blocking(move || {
            for entry in WalkDir::new(&path).into_iter().filter_map(Result::ok) {
                if entry.file_name().to_string_lossy().starts_with(DRAFT_PREFIX) {
                    std::fs::remove_file(entry.path()).context(&what)?;
                }
            }
            Ok(())
        })
        .await
    }

    fn place(&self, verb: &str, key: &ObjectKey) -> (PathBuf, String) {
        (self.root.join(key.as_str()), format!("cannot {verb} {key} in the store {}", self.root.display()))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.context("the store's work was cancelled")?
}

/// An object's file. None if there is none.
fn open(path: &Path) -> std::io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The version that is there.
fn current(path: &Path) -> std::io::Result<Option<ObjectVersion>> {
    open(path)?.map(|file| Ok(version(&file.metadata()?))).transpose()
}

/// Each write makes a file of its own; the time tells files apart that got the same number one after another.
fn version(file: &Metadata) -> ObjectVersion {
    ObjectVersion(format!("{}-{}-{}-{}", file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
}

fn draft(path: &Path) -> std::io::Result<NamedTempFile> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder)?;
    tempfile::Builder::new().prefix(DRAFT_PREFIX).tempfile_in(folder)
}

/// Gives a draft its name once its bytes are on the disk.
fn place(draft: NamedTempFile, path: &Path) -> std::io::Result<Metadata> {
    draft.as_file().set_modified(SystemTime::now())?;
    draft.as_file().sync_all()?;
    let file = draft.persist(path).map_err(|error| error.error)?;
    // The name is in the folder's own data.
    File::open(path.parent().unwrap_or(path))?.sync_all()?;
    file.metadata()
}

/// The right to write, held until the returned file is dropped, also by the kernel for a process that dies.
fn lock(root: &Path) -> std::io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(root.join(LOCK_NAME))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}
