//! Object stores: S3 and what speaks like it, Google Cloud Storage, Azure Blob Storage, Alibaba's OSS.
//!
//! `opendal` forms the requests and reads the answers. It was compared with `object_store` 0.14, which has no
//! OSS, no ACLs and no MD5 of what it sends. A small program that uploads and lists with either, beside
//! `reqwest` which is there anyway, measured 11.4 MB and 139 s of compilation with opendal, 8.2 MB and 109 s
//! with `object_store`, 5.0 MB and 70 s with neither (release, thin LTO, stripped, two cores). Its requests
//! are tried again and signed by [`transport`], from the same signer crates: opendal's own way would read the
//! process's environment, and signs no header that it does not know.
//!
//! An object has one part or many; no reader sees anything before the last request. Parts come from a file
//! that has been proven and has not changed since, and are never held in memory: see [`part`]. The MD5 of
//! each request's body goes with it, and the store refuses another body.

mod azure;
mod body;
mod failure;
mod gs;
mod oss;
mod part;
mod proof;
mod s3;
mod transport;

use super::budget::Budget;
use super::options::Options;
use super::source::{cannot_send, changed, proven, whole};
use super::{NamedBy, Object, Oid, REQUEST_RETRY, RemoteName, RemoteStore, Settings, StoreScheme, each};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use failure::StoreDescription;
use futures_util::TryStreamExt as _;
use opendal::layers::CapabilityOverrideLayer;
use opendal::{Builder, Capability, Executor, HttpTransporter, Metadata, OperationContext, Operator, Writer};
use part::FilePart;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::retry::Tries;
use transport::StoreTransport;

/// An object of up to this size goes by one request, from memory; and a larger one by parts of this size,
/// from its file. This and the next are those of AWS's own programs.
const PART_BYTES: u64 = 8 << 20;
/// How many parts of one object are sent at a time: of one connection S3 takes 85 to 90 MB/s, as AWS says.
const CONCURRENT_PARTS: usize = 10;
/// The most parts of one object that S3 takes. The other stores take more.
const PART_LIMIT: u64 = 10_000;
/// How many questions are asked at a time.
const CONCURRENT_QUESTIONS: usize = 32;
/// The objects in one page of a listing.
const LISTING_PAGE_OBJECTS: usize = 1000;
/// A listing that takes longer than this is given up, and each object asked for.
const LISTING_TIMEOUT: Duration = Duration::from_mins(10);

/// A bucket that keeps objects.
pub(super) struct ObjectStore {
    operator: Operator,
    store: StoreDescription,
    budget: Arc<Budget>,
    /// Whether an entity tag of 32 digits is the content's MD5. That of an encrypted object is not.
    tagged: bool,
}

/// A store, opened by its settings.
struct Opened {
    operator: Operator,
    transport: StoreTransport,
    tagged: bool,
}

impl ObjectStore {
    pub(super) async fn open(settings: &Settings, place: RemoteName, scheme: StoreScheme) -> Result<Self> {
        let mut opened = match scheme {
            StoreScheme::S3 => s3::open(settings, &place).await?,
            StoreScheme::Gs => gs::open(settings, &place)?,
            StoreScheme::Azure => azure::open(settings, &place)?,
            StoreScheme::Oss => oss::open(settings, &place)?,
        };
        opened.transport.tagged = opened.tagged;
        let budget = Arc::clone(&opened.transport.budget);
        let context =
            OperationContext::from_parts(HttpTransporter::new(opened.transport), Executor::default());
        let operator = opened.operator.with_context(context);
        let store = StoreDescription { place, scheme };
        Ok(Self { operator, store, budget, tagged: opened.tagged })
    }

    /// What is known of the object there. None if it is not there.
    async fn look(&self, key: &str) -> Result<Option<Metadata>, opendal::Error> {
        match self.operator.stat(key).await {
            Err(error) if failure::absent(&error) => Ok(None),
            found => found.map(Some),
        }
    }

    /// The sizes of the objects below a folder; none if there are more than `limit`, or the list does not
    /// end.
    async fn list(&self, folder: &str, limit: usize) -> Result<Option<HashMap<String, u64>>, opendal::Error> {
        let listed = async {
            let mut lister = self.operator.lister_with(folder).recursive(true).await?;
            let mut sizes = HashMap::new();
            while let Some(entry) = lister.try_next().await? {
                if sizes.len() >= limit {
                    return Ok(None);
                }
                sizes.insert(entry.path().to_owned(), entry.metadata().content_length());
            }
            Ok(Some(sizes))
        };
        match tokio::time::timeout(LISTING_TIMEOUT, listed).await {
            Ok(Err(error)) if failure::absent(&error) => Ok(Some(HashMap::new())),
            Ok(listed) => listed,
            Err(_) => Ok(None),
        }
    }

    /// The missing objects by a listing, where a listing costs less than a question about each; else none.
    /// The cost of the listing is guessed from one of the 256 folders, as names are evenly spread: a page has
    /// 1,000 objects, and one page follows the other; questions go [`CONCURRENT_QUESTIONS`] at a time. A
    /// server that lists more than was guessed is asked instead, so that no list takes more memory than the
    /// objects.
    async fn missing_listed(&self, objects: &[Object]) -> Result<Option<Vec<Oid>>, opendal::Error> {
        // What DVC 2 kept does not lie in the folder that is listed.
        let old = objects.iter().any(|object| object.oid.is_of_dvc_2());
        let first = objects.first().filter(|_| objects.len() > CONCURRENT_QUESTIONS && !old);
        let Some(first) = first else { return Ok(None) };
        let worth = (objects.len() / CONCURRENT_QUESTIONS + 1) * LISTING_PAGE_OBJECTS;
        let sample = self.list(&format!("{}/", first.oid.folder()), worth.div_ceil(256)).await?;
        if sample.is_none() {
            return Ok(None);
        }
        let Some(there) = self.list("files/md5/", 2 * worth).await? else { return Ok(None) };
        let missing = objects
            .iter()
            .filter(|object| !there.get(&object.oid.key()).is_some_and(|size| object.fits(*size)));
        Ok(Some(missing.map(|object| object.oid.clone()).collect()))
    }

    async fn missing_asked(&self, objects: &[Object]) -> Result<Vec<Oid>> {
        let look = async |object: &Object| {
            let found = self.look(&object.oid.key()).await.map_err(|error| self.unseen(&error))?;
            let there = found.is_some_and(|found| object.fits(found.content_length()));
            Ok((!there).then(|| object.oid.clone()))
        };
        Ok(each(objects, CONCURRENT_QUESTIONS, look).await?.into_iter().flatten().collect())
    }

    fn unsent(&self, object: &Object, error: &opendal::Error) -> Error {
        self.store.explain(&cannot_send(object, &self.store.place), error)
    }

    fn unseen(&self, error: &opendal::Error) -> Error {
        self.store.explain(&format!("cannot look into {}", self.store.place), error)
    }

    /// Sends a small object by one request.
    async fn send_whole(&self, object: &Object) -> Result<Metadata> {
        let content = whole(object).await?;
        let sent = self.operator.write(&object.oid.key(), content).await;
        sent.map_err(|error| self.unsent(object, &error))
    }

    /// Sends a file by parts, and again if the store forgot the upload. That the file was changed is told
    /// before what came of it.
    async fn send_parts(&self, object: &Object, parts: &[FilePart]) -> Result<Metadata> {
        let mut tries = Tries::new(REQUEST_RETRY);
        loop {
            match self.try_parts(object, parts).await {
                Err(error) if failure::gone(&error) && tries.wait_for_next(None).await => {}
                // All are of one file.
                Err(_) if !parts.first().is_some_and(FilePart::holds) => return Err(changed(object)),
                sent => return sent.map_err(|error| self.unsent(object, &error)),
            }
        }
    }

    /// Ends or undoes what it began.
    async fn try_parts(&self, object: &Object, parts: &[FilePart]) -> opendal::Result<Metadata> {
        let mut writer = self.operator.writer_with(&object.oid.key()).concurrent(CONCURRENT_PARTS).await?;
        let sent = write(&mut writer, parts).await;
        if sent.is_err() {
            // What stays costs room until the store's own rules remove it, but is nothing that a reader could
            // see.
            writer.abort().await.ok();
        }
        sent
    }

    /// Believes what the store says of the object: its MD5, or where it has none, its size. The MD5 of each
    /// part, and of the whole where it was sent at once, was with the request, so that the store had to
    /// refuse another.
    async fn confirm(&self, object: &Object, written: Metadata) -> Result<()> {
        let md5 = encoded_md5(&object.oid);
        let says = |found: &Metadata| {
            let tag = found.etag().map(|tag| tag.trim_matches('"'));
            let tag = tag
                .filter(|tag| self.tagged && tag.len() == 32)
                .map(|tag| tag.eq_ignore_ascii_case(object.oid.md5()));
            // Google tells an empty one of an object that was sent by parts.
            found.content_md5().filter(|told| !told.is_empty()).map(|told| told == md5).or(tag)
        };
        let (right, size) = match says(&written) {
            Some(right) => (right, object.size),
            None => match self.look(&object.oid.key()).await.map_err(|error| self.unsent(object, &error))? {
                Some(found) => (says(&found).unwrap_or(true), found.content_length()),
                None => (true, 0),
            },
        };
        if right && size == object.size {
            return Ok(());
        }
        // Wrong is worse than absent: DVC would believe it.
        self.operator.delete(&object.oid.key()).await.ok();
        let why = if right {
            format!("{size} bytes are there, not {}", object.size)
        } else {
            "its MD5 there is another".to_owned()
        };
        Err(Error::new(cannot_send(object, &self.store.place))
            .source(why)
            .hint("run again; if it stays, something between here and the store changes what is sent"))
    }
}

impl RemoteStore for ObjectStore {
    async fn missing(&self, objects: &[Object]) -> Result<Vec<Oid>> {
        match self.missing_listed(objects).await.map_err(|error| self.unseen(&error))? {
            Some(missing) => Ok(missing),
            None => self.missing_asked(objects).await,
        }
    }

    async fn put(&self, object: &Object) -> Result<()> {
        let file = if object.size > PART_BYTES { proven(object).await? } else { None };
        let written = if let Some((path, stamp)) = file {
            let length = object.size.div_ceil(PART_LIMIT).max(PART_BYTES);
            let parts: Vec<_> = FilePart::all(&path, stamp, object.size, length).collect();
            self.send_parts(object, &parts).await?
        } else {
            let _held = self.budget.take(object.size).await?;
            self.send_whole(object).await?
        };
        self.confirm(object, written).await
    }
}

async fn write(writer: &mut Writer, parts: &[FilePart]) -> opendal::Result<Metadata> {
    for part in parts {
        writer.write(part.ticket().map_err(transport::unread)?).await?;
    }
    writer.close().await
}

/// The MD5 that names an object, as HTTP writes it.
fn encoded_md5(oid: &Oid) -> String {
    proof::encoded(oid.md5()).unwrap_or_default()
}

/// The address that gets a credential, and who named it; none without a credential.
type CredentialReceiver = Option<(String, NamedBy)>;

pub(super) fn recipient(store: StoreScheme, options: &Options<'_>) -> Result<CredentialReceiver> {
    match store {
        StoreScheme::S3 => s3::recipient(options),
        StoreScheme::Gs => gs::recipient(options),
        StoreScheme::Azure => azure::recipient(options),
        StoreScheme::Oss => Ok(oss::endpoint(options)),
    }
}

/// The bucket and the folder in it that an address names.
fn bucket<'a>(settings: &'a Settings, place: &RemoteName) -> Result<(&'a str, &'a str)> {
    let (_, rest) = settings.url.split_once("://").unwrap_or_default();
    let (bucket, folder) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        let error = Error::new(format!("{place} names no bucket")).kind(Kind::Configuration);
        return Err(error.hint("its url is to be like s3://bucket/folder"));
    }
    // Some services have it in their host's name, where other letters could make another host of it.
    let fits = |letter: u8| letter.is_ascii_alphanumeric() || b"-._$".contains(&letter);
    if !bucket.bytes().all(fits) {
        let error = Error::new(format!("{place} names '{bucket}', which cannot be a bucket"));
        return Err(error.kind(Kind::Configuration).hint("its url is to be like s3://bucket/folder"));
    }
    Ok((bucket, folder.trim_matches('/')))
}

/// The operator of a service. Nothing is asked of the network.
fn operator(builder: impl Builder, place: &RemoteName) -> Result<Operator> {
    let operator = Operator::new(builder).map_err(|error| {
        Error::new(format!("{place} cannot be used"))
            .source(error.message().to_owned())
            .kind(Kind::Configuration)
    })?;
    // A part's ticket is shorter than a part may be.
    Ok(operator.layer(CapabilityOverrideLayer::new(|capability| Capability {
        write_multi_min_size: None,
        ..capability
    })))
}

/// A value that is no use without another.
fn needs(options: &Options<'_>, key: &str, other: &str) -> Error {
    options.wrong(key, &format!("needs '{other}' beside it"))
}

fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}
