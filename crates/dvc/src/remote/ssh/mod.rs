//! A folder behind an SSH server, by SFTP.
//!
//! Unlike DVC, which checks no host keys, we talk only to a server that `known_hosts` knows. An object is
//! written under a temporary name, synced, measured, and renamed, which the server does at once
//! (`posix-rename@openssh.com`).

mod failure;
mod login;
mod session;
mod target;

use super::budget::Budget;
use super::options::{KnownKeys, Options};
use super::source::{Parts, cannot_send};
use super::{Object, Oid, REQUEST_RETRY, RemoteName, RemoteStore, Settings, each, temporary};
use failure::SftpFailure;
use session::SftpSession;
use std::sync::Arc;
use target::SftpTarget;
use tokio::sync::Mutex;
use trainspot_base::error::{Error, Result};
use trainspot_base::retry::Tries;

const SSH_KEYS: KnownKeys = KnownKeys {
    honoured: &["port", "user", "password", "passphrase", "keyfile", "timeout"],
    ignored: &["type", "allow_agent", "max_sessions"],
    refused: &[
        ("ask_password", "nobody is there to be asked: set 'password' in .dvc/config.local, or use a key"),
        ("ask_passphrase", "nobody is there to be asked: set 'passphrase' in .dvc/config.local"),
        ("gss_auth", "use a key: 'keyfile'"),
    ],
};

/// The bytes that one read of a file gives.
const READ_PIECE_BYTES: usize = 1 << 20;
/// The memory of one upload: pieces read ahead, and writes without an answer yet.
const UPLOAD_MEMORY_BYTES: u64 = 8 << 20;
/// How many questions are asked at a time. Each is a round trip, and hardly work for the server.
const CONCURRENT_QUESTIONS: usize = 128;

/// The server's address, where its credential goes.
pub(super) fn address(settings: &Settings, options: &Options<'_>) -> String {
    target::address(settings, options)
}

/// A folder behind an SSH server.
pub(super) struct SftpRemote {
    target: SftpTarget,
    root: String,
    place: RemoteName,
    budget: Budget,
    /// The connection, once it is needed. One that broke is opened again.
    session: Mutex<Option<Arc<SftpSession>>>,
}

impl SftpRemote {
    pub(super) fn open(settings: &Settings, place: RemoteName) -> Result<Self> {
        let options = Options::check(settings, &place, &SSH_KEYS)?;
        let (target, root) = SftpTarget::of(settings, &options)?;
        Ok(Self { target, root, place, budget: Budget::new(), session: Mutex::new(None) })
    }

    fn path(&self, key: &str) -> String {
        format!("{}/{key}", self.root)
    }

    async fn session(&self) -> Result<Arc<SftpSession>, SftpFailure> {
        let mut place = self.session.lock().await;
        if let Some(session) = place.as_ref().filter(|session| session.is_open()) {
            return Ok(Arc::clone(session));
        }
        *place = None;
        Ok(Arc::clone(place.insert(Arc::new(SftpSession::open(&self.target).await?))))
    }

    /// Forgets a connection on which something went wrong, unless another one is there already.
    async fn forget(&self, broken: &Arc<SftpSession>) {
        let mut place = self.session.lock().await;
        place.take_if(|session| Arc::ptr_eq(session, broken));
    }

    /// Does work on a connection, and again on a new connection where the first one broke.
    async fn with<T, F: Future<Output = Result<T, SftpFailure>>>(
        &self,
        what: &str,
        work: impl Fn(Arc<SftpSession>) -> F,
    ) -> Result<T> {
        let mut tries = Tries::new(REQUEST_RETRY);
        loop {
            let failure = match self.session().await {
                Ok(session) => match session.while_open(work(Arc::clone(&session))).await {
                    Ok(done) => return Ok(done),
                    Err(failure) => {
                        if failure.is_transient() {
                            self.forget(&session).await;
                        }
                        failure
                    }
                },
                Err(failure) => failure,
            };
            if !(failure.is_transient() && tries.wait_for_next(None).await) {
                return Err(failure.explain(what));
            }
        }
    }

    async fn send(
        &self,
        session: Arc<SftpSession>,
        object: &Object,
        temporary: &str,
    ) -> Result<(), SftpFailure> {
        let path = self.path(&object.oid.key());
        let (folder, _) = temporary.rsplit_once('/').unwrap_or_default();
        let placed = async {
            let file = session.create(folder, temporary).await?;
            let mut parts = Parts::of(object, READ_PIECE_BYTES);
            let written = async {
                let mut writer = session.writer(&file);
                while let Some(part) = parts.next().await.map_err(SftpFailure::Final)? {
                    writer.write(&part).await?;
                }
                writer.end().await
            };
            let written = written.await;
            let closed = session.close(&file).await;
            written.and(closed)?;
            match session.length(temporary).await? {
                Some(length) if length != object.size => {
                    let why = format!("{length} bytes arrived, not {}", object.size);
                    Err(SftpFailure::Final(Error::new(why).hint("look whether the server's disk is full")))
                }
                _ => session.rename(temporary, &path).await,
            }
        };
        let placed = placed.await;
        if placed.is_err() && session.is_open() {
            session.remove(temporary).await;
        }
        placed
    }
}

impl RemoteStore for SftpRemote {
    async fn missing(&self, objects: &[Object]) -> Result<Vec<Oid>> {
        let what = format!("cannot look into {}", self.place);
        let look = async |object: &Object| {
            let path = self.path(&object.oid.key());
            let length =
                self.with(&what, async |session: Arc<SftpSession>| session.length(&path).await).await?;
            Ok((!length.is_some_and(|length| object.fits(length))).then(|| object.oid.clone()))
        };
        Ok(each(objects, CONCURRENT_QUESTIONS, look).await?.into_iter().flatten().collect())
    }

    async fn put(&self, object: &Object) -> Result<()> {
        let _held = self.budget.take(UPLOAD_MEMORY_BYTES.min(object.size)).await?;
        // One name for all tries: what a broken one left is overwritten, and moved away, by the next.
        let temporary = self.path(&temporary(&object.oid));
        self.with(&cannot_send(object, &self.place), |session| self.send(session, object, &temporary)).await
    }
}
