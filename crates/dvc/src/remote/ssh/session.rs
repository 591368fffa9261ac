//! A connection with its SFTP session.

use super::failure::SftpFailure;
use super::login;
use super::target::SftpTarget;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use russh_sftp::client::RawSftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Mutex;
use tokio::time::timeout;
use trainspot_base::error::Result;
use trainspot_base::mutex::lock;
use trainspot_ssh::{ConnectError, SshConnection};

/// How long the server may take to answer, in seconds. The sync of a large file takes longest.
const ANSWER_TIMEOUT_SECONDS: u64 = 120;
/// The bytes of one write where the server states no limit: every server takes that many.
const DEFAULT_WRITE_BYTES: u64 = 32 << 10;
/// The largest write. OpenSSH takes 255 KiB, and more gains nothing.
const WRITE_LIMIT_BYTES: u64 = 255 << 10;
/// The bytes of a file that are sent before the server has answered for them: enough for 80 MB/s at 50 ms.
const UNANSWERED_LIMIT_BYTES: usize = 4 << 20;

/// A login with an SFTP session.
pub(super) struct SftpSession {
    sftp: RawSftpSession,
    connection: SshConnection,
    /// Whether the server renames over a file that is there, at once.
    renames_over: bool,
    can_sync: bool,
    /// What is written at once.
    write_bytes: usize,
    /// The folders that are known to be there.
    made: Mutex<HashSet<String>>,
}

impl SftpSession {
    /// Connects and logs in.
    pub(super) async fn open(target: &SftpTarget) -> Result<Self, SftpFailure> {
        let late = |_| {
            SftpFailure::Broken(format!(
                "no login at {}:{} within {} s",
                target.host,
                target.port,
                target.login_timeout.as_secs()
            ))
        };
        timeout(target.login_timeout, Self::connect(target)).await.map_err(late)?
    }

    async fn connect(target: &SftpTarget) -> Result<Self, SftpFailure> {
        let connection = login::log_in(target).await?;
        let channel = connection.channel().await?;
        channel.request_subsystem(true, "sftp").await.map_err(ConnectError::from)?;
        let mut sftp = RawSftpSession::new(channel.into_stream());
        sftp.set_timeout(ANSWER_TIMEOUT_SECONDS);
        let extensions = sftp.init().await?.extensions;
        let has = |name: &str| extensions.contains_key(name);
        let mut write_bytes = DEFAULT_WRITE_BYTES;
        if has("limits@openssh.com") {
            let limits = sftp.limits().await?;
            write_bytes = Some(limits.max_write_len)
                .filter(|length| *length > 0)
                .unwrap_or(DEFAULT_WRITE_BYTES)
                .min(WRITE_LIMIT_BYTES);
            sftp.set_limits(limits.into());
        }
        Ok(Self {
            renames_over: has("posix-rename@openssh.com"),
            can_sync: has("fsync@openssh.com"),
            write_bytes: usize::try_from(write_bytes).unwrap_or(UNANSWERED_LIMIT_BYTES),
            made: Mutex::default(),
            sftp,
            connection,
        })
    }

    pub(super) fn is_open(&self) -> bool {
        !self.connection.has_ended()
    }

    /// Does work, which ends with the connection.
    pub(super) async fn while_open<T>(
        &self,
        work: impl Future<Output = Result<T, SftpFailure>>,
    ) -> Result<T, SftpFailure> {
        self.connection.while_open(work).await?
    }

    /// The length of a file; none if it is not there.
    pub(super) async fn length(&self, path: &str) -> Result<Option<u64>, SftpFailure> {
        match self.sftp.stat(path).await {
            Ok(found) => Ok(found.attrs.size),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file for writing, empty, and makes its folder where that is not there.
    pub(super) async fn create(&self, folder: &str, path: &str) -> Result<String, SftpFailure> {
        self.make(folder).await?;
        let flags = OpenFlags::CREATE | OpenFlags::WRITE | OpenFlags::TRUNCATE;
        Ok(self.sftp.open(path, flags, FileAttributes::empty()).await?.handle)
    }

    /// Makes a folder and the missing folders above it. Making a folder that exists fails, so after a failure
    /// the server is asked whether the folder is there.
    async fn make(&self, folder: &str) -> Result<(), SftpFailure> {
        if lock(&self.made).contains(folder) {
            return Ok(());
        }
        let ends = folder.match_indices('/').map(|(end, _)| end).skip(1).chain([folder.len()]);
        let mut missing = Vec::new();
        for end in ends.collect::<Vec<_>>().into_iter().rev() {
            if self.length_of_folder(&folder[..end]).await? {
                break;
            }
            missing.push(&folder[..end]);
        }
        for path in missing.into_iter().rev() {
            if let Err(error) = self.sftp.mkdir(path, FileAttributes::empty()).await
                && !self.length_of_folder(path).await?
            {
                return Err(error.into());
            }
        }
        lock(&self.made).insert(folder.to_owned());
        Ok(())
    }

    async fn length_of_folder(&self, path: &str) -> Result<bool, SftpFailure> {
        match self.sftp.stat(path).await {
            Ok(_) => Ok(true),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A writer that writes an open file from its start.
    pub(super) fn writer<'a>(&'a self, file: &'a str) -> SftpWriter<'a> {
        SftpWriter { session: self, file, offset: 0, under_way: FuturesUnordered::new() }
    }

    pub(super) async fn close(&self, file: &str) -> Result<(), SftpFailure> {
        self.sftp.close(file).await?;
        Ok(())
    }

    /// Gives a file its name. The protocol's own rename fails where there is one, which then is removed
    /// first.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<(), SftpFailure> {
        if self.renames_over {
            let names = [from, to].map(|name| {
                [&u32::try_from(name.len()).unwrap_or_default().to_be_bytes(), name.as_bytes()].concat()
            });
            let answer = self.sftp.extended("posix-rename@openssh.com", names.concat()).await?;
            return match answer {
                russh_sftp::protocol::Packet::Status(status) if status.status_code != StatusCode::Ok => {
                    Err(SftpError::Status(status).into())
                }
                _ => Ok(()),
            };
        }
        self.remove(to).await;
        self.sftp.rename(from, to).await?;
        Ok(())
    }

    /// Removes a file, if it can.
    pub(super) async fn remove(&self, path: &str) {
        self.sftp.remove(path).await.ok();
    }
}

type PendingWrite<'a> = Pin<Box<dyn Future<Output = Result<(), SftpError>> + Send + 'a>>;

/// Writes a file; the server's answers are awaited while more is sent.
pub(super) struct SftpWriter<'a> {
    session: &'a SftpSession,
    file: &'a str,
    offset: u64,
    under_way: FuturesUnordered<PendingWrite<'a>>,
}

impl SftpWriter<'_> {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), SftpFailure> {
        for piece in bytes.chunks(self.session.write_bytes) {
            if self.under_way.len() >= (UNANSWERED_LIMIT_BYTES / self.session.write_bytes).max(1) {
                self.under_way.next().await.unwrap_or(Ok(()))?;
            }
            let (session, file, offset, bytes) = (self.session, self.file, self.offset, piece.to_vec());
            self.under_way
                .push(Box::pin(async move { session.sftp.write(file, offset, bytes).await.map(drop) }));
            self.offset += piece.len() as u64;
        }
        Ok(())
    }

    /// Waits for the answers to all writes, and for the sync to the disk.
    pub(super) async fn end(mut self) -> Result<(), SftpFailure> {
        while let Some(written) = self.under_way.next().await {
            written?;
        }
        if self.session.can_sync {
            self.session.sftp.fsync(self.file).await?;
        }
        Ok(())
    }
}
