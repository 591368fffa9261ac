//! A folder as a remote, such as a network share.
//!
//! DVC trusts an object there for its mode, 0444, without looking into it. So an object gets its name only
//! after its bytes are on the disk: else a power failure leaves an empty file under it, as file systems write
//! names before content. One sync of the file system serves many objects: 10,000 of their own would take
//! longer than all the rest.

use super::options::{KnownKeys, Options};
use super::source::{ObjectReader, cannot_send};
use super::{Object, Oid, RemoteName, RemoteStore, Settings, each};
use crate::{Draft, ObjectContent, draft};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::{NamedTempFile, TempPath};
use tokio::task::spawn_blocking;
use trainspot_base::error::{Context as _, Error, Result};

const LOCAL_KEYS: KnownKeys =
    KnownKeys { honoured: &["shared"], ignored: &["type", "protected", "slow_link_warning"], refused: &[] };

/// The bytes that are read and hashed before they are written.
const READ_PIECE_BYTES: usize = 256 << 10;
/// How many objects one task of a thread writes.
const OBJECTS_PER_TASK: usize = 64;
/// How many objects share one sync of the file system.
const OBJECTS_PER_SYNC: usize = 2048;
/// The threads that read, hash and write. More would wait for the same disk.
const WRITER_THREADS: usize = 4;
/// The mode that DVC gives its objects, and by which it trusts them.
const OBJECT_MODE: u32 = 0o444;

/// A folder that keeps objects.
pub(super) struct FolderRemote(Arc<ObjectFolder>);

struct ObjectFolder {
    root: PathBuf,
    /// Whether the group may write too.
    shared: bool,
    place: RemoteName,
}

impl FolderRemote {
    pub(super) fn open(settings: &Settings, place: RemoteName) -> Result<Self> {
        let options = Options::check(settings, &place, &LOCAL_KEYS)?;
        let shared = match options.text("shared") {
            None => false,
            Some(text) if text.eq_ignore_ascii_case("group") => true,
            Some(_) => return Err(options.wrong("shared", "can only be 'group'")),
        };
        let root = options.resolve(&settings.url);
        Ok(Self(Arc::new(ObjectFolder { root, shared, place })))
    }

    /// Where copies of files can be made that may become objects here.
    pub(super) fn drafts(self) -> Drafts {
        Drafts(self.0)
    }
}

impl RemoteStore for FolderRemote {
    async fn missing(&self, objects: &[Object]) -> Result<Vec<Oid>> {
        let (folder, objects) = (Arc::clone(&self.0), objects.to_vec());
        let look = move || {
            let missing = objects.iter().filter_map(|object| match folder.has(object) {
                Ok(true) => None,
                Ok(false) => Some(Ok(object.oid.clone())),
                Err(error) => Some(Err(error)),
            });
            missing.collect()
        };
        spawn_blocking(look).await.context("cannot look for objects")?
    }

    async fn put(&self, object: &Object) -> Result<()> {
        let (folder, object) = (Arc::clone(&self.0), object.clone());
        let send = move || {
            let temporary = folder.write(&object, true)?;
            let target = folder.name(&object, temporary)?;
            // The name itself is on the disk only with the folder that holds it.
            let synced = target.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all());
            synced.map_err(|error| folder.unwritable(&object, error))
        };
        spawn_blocking(send).await.context("cannot write an object")?
    }

    async fn put_all(&self, objects: &[Object]) -> Result<()> {
        for batch in objects.chunks(OBJECTS_PER_SYNC) {
            self.put_batch(batch).await?;
        }
        Ok(())
    }
}

impl FolderRemote {
    /// Writes all of them, syncs once, and gives each its name.
    async fn put_batch(&self, batch: &[Object]) -> Result<()> {
        let tasks: Vec<_> = batch.chunks(OBJECTS_PER_TASK).collect();
        let write = |objects: &&[Object]| {
            let (folder, objects) = (Arc::clone(&self.0), objects.to_vec());
            async move { spawn_blocking(move || folder.write_all(objects)).await.context("cannot write objects")? }
        };
        let written = each(&tasks, WRITER_THREADS, write).await?.into_iter().flatten();
        let folder = Arc::clone(&self.0);
        let name = move || {
            folder.sync()?;
            for (object, temporary) in written {
                folder.name(&object, temporary)?;
            }
            folder.sync()
        };
        spawn_blocking(name).await.context("cannot name objects")?
    }
}

/// Where copies of files can be made that may become objects.
#[derive(Clone)]
pub(crate) struct Drafts(Arc<ObjectFolder>);

impl Drafts {
    /// A copy of a file, unless there is no room for it or any other trouble: sending it tells.
    pub(crate) fn of(&self, file: &File) -> Option<Draft> {
        let root = &self.0.root;
        let temporary = self.0.temporary(root).ok()?;
        draft::copy(file, temporary.as_file()).ok()?;
        Some(Draft::new(temporary))
    }
}

impl ObjectFolder {
    fn path(&self, object: &Object) -> PathBuf {
        self.root.join(object.oid.key())
    }

    fn folder(&self, object: &Object) -> PathBuf {
        self.root.join(object.oid.folder())
    }

    /// Whether the object is there and whole. One that DVC would not trust is read.
    fn has(&self, object: &Object) -> Result<bool> {
        let path = self.path(object);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(false);
            }
            Err(error) => return Err(Error::new(format!("cannot look into {}", self.place)).source(error)),
        };
        if !metadata.is_file() || !object.fits(metadata.len()) {
            return Ok(false);
        }
        if metadata.permissions().mode() & 0o777 == OBJECT_MODE {
            return Ok(true);
        }
        let there =
            Object { size: metadata.len(), content: ObjectContent::File(path), oid: object.oid.clone() };
        Ok(ObjectReader::open(&there).and_then(ObjectReader::prove_all).is_ok())
    }

    fn write_all(&self, objects: Vec<Object>) -> Result<Vec<(Object, TempPath)>> {
        let write = |object: Object| self.write(&object, false).map(|temporary| (object, temporary));
        objects.into_iter().map(write).collect()
    }

    /// Writes the object beside its place, under a name that says nothing. Removed again unless it gets its
    /// name.
    fn write(&self, object: &Object, sync: bool) -> Result<TempPath> {
        let unwritable = |error| self.unwritable(object, error);
        let draft = match &object.content {
            ObjectContent::Drafted(_, _, draft) => draft.take(),
            _ => None,
        };
        let temporary = if let Some(draft) = draft {
            // It is in the root: nothing has made the folder that its name is in.
            self.make(&self.folder(object)).map_err(unwritable)?;
            draft
        } else {
            self.copy(object)?
        };
        let file = temporary.as_file();
        file.set_permissions(Permissions::from_mode(OBJECT_MODE)).map_err(unwritable)?;
        if sync {
            file.sync_all().map_err(unwritable)?;
        }
        let length = file.metadata().map_err(unwritable)?.len();
        if length != object.size {
            return Err(unwritable(io::Error::other(format!("{length} bytes arrived, not {}", object.size))));
        }
        Ok(temporary.into_temp_path())
    }

    fn copy(&self, object: &Object) -> Result<NamedTempFile> {
        let mut reader = ObjectReader::open(object)?;
        let unwritable = |error| self.unwritable(object, error);
        let mut temporary = self.temporary(&self.folder(object)).map_err(unwritable)?;
        if let Some(file) = reader.stamped() {
            let copied = draft::copy(file, temporary.as_file()).map_err(unwritable)?;
            reader.skip(copied)?;
        } else {
            let mut buffer =
                vec![0; READ_PIECE_BYTES.min(usize::try_from(object.size).unwrap_or(READ_PIECE_BYTES))];
            loop {
                let length = reader.read(&mut buffer)?;
                if length == 0 {
                    break;
                }
                temporary.write_all(&buffer[..length]).map_err(unwritable)?;
            }
        }
        reader.prove()?;
        Ok(temporary)
    }

    /// A new file in a folder, which is made if it is not there.
    fn temporary(&self, folder: &Path) -> io::Result<NamedTempFile> {
        let new = || tempfile::Builder::new().prefix(".").suffix(".tmp").tempfile_in(folder);
        new().or_else(|error| match error.kind() {
            ErrorKind::NotFound => self.make(folder).and_then(|()| new()),
            _ => Err(error),
        })
    }

    fn name(&self, object: &Object, temporary: TempPath) -> Result<PathBuf> {
        let target = self.path(object);
        temporary.persist(&target).map_err(|error| self.unwritable(object, error.error))?;
        Ok(target)
    }

    fn make(&self, folder: &Path) -> io::Result<()> {
        let missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
        for folder in missing.into_iter().rev() {
            match DirBuilder::new().mode(0o777).create(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ if self.shared => fs::set_permissions(folder, Permissions::from_mode(0o2775))?,
                _ => {}
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let synced = File::open(&self.root).and_then(|root| Ok(rustix::fs::syncfs(root)?));
        match synced {
            // Nothing was written, or there would be a folder.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            synced => synced.with_context(|| format!("cannot write {} to the disk", self.place)),
        }
    }

    fn unwritable(&self, object: &Object, error: io::Error) -> Error {
        let hint = match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "make room there: `dvc gc --cloud` removes what no commit uses"
            }
            ErrorKind::PermissionDenied => "let this user write there",
            ErrorKind::ReadOnlyFilesystem => "mount it so that it can be written to",
            _ => "look whether the folder is there and can be written to",
        };
        Error::new(cannot_send(object, &self.place)).source(error).hint(hint)
    }
}
