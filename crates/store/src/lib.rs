//! A store of objects under names: a bucket of S3, or of a server that speaks like it, or a folder.
//!
//! | promise | by what |
//! | --- | --- |
//! | an object is there whole, or not at all | S3 itself; a folder's file gets its name when it is on the disk |
//! | of two writers that each expect what they have read, one wins | conditional writes: `If-None-Match`, `If-Match`; a lock in the folder |
//! | a lost answer is no lost write | a write that is refused after an attempt without an answer is compared with what is there |
//! | time is the store's | an object's age is the difference of two times that the store tells, so that no two hosts' clocks are compared |
//! | memory is bounded | objects that are read whole have a limit; files go by parts |
//!
//! S3 is spoken by hand, in the requests of `s3/`, and not by `opendal`, which DVC's remotes use: what counts
//! here are conditions and their lost answers, for which opendal has one error among its others, and four
//! requests are less to know than its layers.

mod folder;
mod lease;
mod object_key;
mod s3;
mod signature;

pub use lease::{Lease, LeaseState};
pub use object_key::ObjectKey;
pub use s3::BucketAccess;
pub use signature::{AwsSigner, BucketCredentials, NoSignature};

use folder::FolderStore;
use s3::BucketStore;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use trainspot_base::error::{Error, Kind, Result};

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAddress {
    /// `s3://bucket/prefix`; the prefix may be empty.
    Bucket {
        /// The bucket's name.
        bucket: String,
        /// What precedes each object's key and a slash.
        prefix: String,
    },
    /// A folder of this host.
    Folder(PathBuf),
}

impl StoreAddress {
    /// Reads `s3://bucket/prefix`, or an absolute path.
    ///
    /// # Errors
    /// The text is neither, or names what cannot be a bucket.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(format!("'{text}' {why}"))
                .kind(Kind::Configuration)
                .hint("write s3://BUCKET/PREFIX, or the absolute path of a folder")
        };
        if let Some(rest) = text.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let fits = |letter: u8| {
                letter.is_ascii_lowercase() || letter.is_ascii_digit() || b"-.".contains(&letter)
            };
            if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(fits) {
                return Err(wrong("names no bucket"));
            }
            let prefix = prefix.trim_matches('/');
            if !prefix.is_empty() {
                ObjectKey::new(prefix)?;
            }
            return Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() });
        }
        if Path::new(text).is_absolute() {
            Ok(Self::Folder(text.into()))
        } else {
            Err(wrong("is no store's address"))
        }
    }
}

impl fmt::Display for StoreAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(formatter, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(formatter, "s3://{bucket}/{prefix}"),
            Self::Folder(folder) => write!(formatter, "{}", folder.display()),
        }
    }
}

/// What has to be there for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteCondition {
    /// Whatever is there is replaced.
    None,
    /// Nothing is there.
    Absent,
    /// The object is the one that was read.
    Unchanged(ObjectVersion),
}

/// What tells an object from the one that another write put into its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion(String);

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The object is there.
    Written(ObjectVersion),
    /// The condition did not hold: somebody else has written.
    ConditionFailed,
}

/// An object that was read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// The content.
    pub bytes: Vec<u8>,
    /// What a write can make its condition.
    pub version: ObjectVersion,
    /// How long ago the object was written, by the store's own clock, to the second.
    pub age: Duration,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// The name.
    pub key: ObjectKey,
    /// The length in bytes.
    pub size: u64,
}

/// A store.
#[derive(Clone, Debug)]
pub enum Store {
    /// A bucket.
    Bucket(BucketStore),
    /// A folder.
    Folder(FolderStore),
}

impl Store {
    /// Opens a store. `access` counts for a bucket alone. Nothing is asked of the network.
    ///
    /// # Errors
    /// The access cannot be used, such as an endpoint that is no URL.
    pub fn open(address: &StoreAddress, access: &BucketAccess) -> Result<Self> {
        Ok(match address {
            StoreAddress::Bucket { bucket, prefix } => {
                Self::Bucket(BucketStore::open(bucket, prefix, access)?)
            }
            StoreAddress::Folder(path) => Self::Folder(FolderStore::open(path.clone())),
        })
    }

    /// Reads an object of at most `limit_bytes` whole. None if there is no such object.
    pub async fn read(&self, key: &ObjectKey, limit_bytes: usize) -> Result<Option<StoredObject>> {
        match self {
            Self::Bucket(store) => store.read(key, limit_bytes).await,
            Self::Folder(store) => store.read(key, limit_bytes).await,
        }
    }

    /// Copies an object of at most `limit_bytes` into a file that is open for writing and empty, and returns
    /// its length. None if there is no such object.
    pub async fn fetch(&self, key: &ObjectKey, into: std::fs::File, limit_bytes: u64) -> Result<Option<u64>> {
        match self {
            Self::Bucket(store) => store.fetch(key, into, limit_bytes).await,
            Self::Folder(store) => store.fetch(key, into, limit_bytes).await,
        }
    }

    /// Writes an object that is held in memory.
    pub async fn write(
        &self,
        key: &ObjectKey,
        bytes: Vec<u8>,
        condition: WriteCondition,
    ) -> Result<WriteOutcome> {
        match self {
            Self::Bucket(store) => store.write(key, bytes.into(), condition).await,
            Self::Folder(store) => store.write(key, bytes, condition).await,
        }
    }

    /// Sends a file as an object, whatever is there. The file must not change meanwhile.
    pub async fn send(&self, key: &ObjectKey, file: &Path) -> Result<()> {
        match self {
            Self::Bucket(store) => store.send(key, file).await,
            Self::Folder(store) => store.send(key, file).await,
        }
    }

    /// The objects whose keys begin with `prefix`, in their keys' order.
    ///
    /// # Errors
    /// There are more than `limit`.
    pub async fn list(&self, prefix: &ObjectKey, limit: usize) -> Result<Vec<ListedObject>> {
        match self {
            Self::Bucket(store) => store.list(prefix, limit).await,
            Self::Folder(store) => store.list(prefix, limit).await,
        }
    }

    /// Removes an object, if it is there.
    pub async fn delete(&self, key: &ObjectKey) -> Result<()> {
        match self {
            Self::Bucket(store) => store.delete(key).await,
            Self::Folder(store) => store.delete(key).await,
        }
    }

    /// Ends the uploads below `prefix` that nobody finished, which no listing shows and which cost their
    /// room.
    pub async fn end_unfinished(&self, prefix: &ObjectKey) -> Result<()> {
        match self {
            Self::Bucket(store) => store.end_unfinished(prefix).await,
            Self::Folder(store) => store.end_unfinished(prefix).await,
        }
    }
}

/// An object that is longer than the reader's limit.
fn too_long(what: &str, limit_bytes: u64) -> Error {
    Error::new(format!("{what}: the object is longer than {limit_bytes} bytes"))
}

/// A listing that is longer than the reader's limit.
fn too_many(what: &str, limit: usize) -> Error {
    Error::new(format!("{what}: there are more than {limit} objects"))
}

#[cfg(test)]
mod tests;
