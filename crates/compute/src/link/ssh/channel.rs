//! A command on the machine: its streams, its words and its end, by one channel.

use super::connection::Connection;
use crate::link::{Finished, Session};
use bytes::BytesMut;
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trainspot_base::error::{Context as _, Error, Result};

/// What is kept of a command's standard error.
const WORDS_LIMIT_BYTES: usize = 8 << 10;
/// What either stream holds; enough that its two ends need not take turns.
const BUFFER: usize = 1 << 20;
/// What is sent at once.
const PIECE: usize = 128 << 10;
/// The standard error's number in the protocol (RFC 4254, 5.2).
const STDERR: u32 = 1;

/// Starts a command. Dropping the session's `finished` closes the channel, by which the command ends.
///
/// What the command leaves running may hold its output open: `linger` says how long to wait for silence once
/// it ended.
pub(super) async fn start(
    connection: Arc<Connection>,
    channel: Channel<Msg>,
    command: &str,
    linger: Option<Duration>,
) -> Result<Session> {
    channel.exec(true, command).await.with_context(|| lost(&connection))?;
    let (input, from) = duplex(BUFFER);
    let (output, to) = duplex(BUFFER);
    let mut pump = Ending(tokio::spawn(pump(connection, channel, from, to, linger)));
    let finished = async move { (&mut pump.0).await.context("cannot wait for the machine")? };
    Ok(Session { input: Some(Box::pin(input)), output: Some(Box::pin(output)), finished: Box::pin(finished) })
}

/// Ends a task when it is dropped.
struct Ending<T>(JoinHandle<T>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Closes a channel when it is dropped. One that is closed already stays so.
struct Closing(Arc<ChannelWriteHalf<Msg>>);

impl Drop for Closing {
    fn drop(&mut self) {
        let channel = Arc::clone(&self.0);
        // Fails only if the connection is gone, and the channel with it.
        tokio::spawn(async move { channel.close().await.ok() });
    }
}

async fn pump(
    connection: Arc<Connection>,
    channel: Channel<Msg>,
    from: DuplexStream,
    to: DuplexStream,
    linger: Option<Duration>,
) -> Result<Finished> {
    let (reader, writer) = channel.split();
    let closing = Closing(Arc::new(writer));
    let feeding = async {
        // A connection that is gone ends the reading too, which knows more.
        feed(&closing.0, from).await.ok();
        pending().await
    };
    let finished = tokio::select! {
        finished = read(reader, to, linger) => finished,
        finished = feeding => finished,
    };
    finished?.ok_or_else(|| Error::new(lost(&connection)))
}

fn lost(connection: &Connection) -> String {
    format!("the connection to {} broke", connection.address)
}

async fn feed(writer: &ChannelWriteHalf<Msg>, mut from: DuplexStream) -> Result<(), russh::Error> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        if from.read_buf(&mut buffer).await? == 0 {
            return writer.eof().await;
        }
        writer.data_bytes(buffer.split().freeze()).await?;
    }
}

/// Reads a channel to its end; `None` when that came without a word about the command's.
async fn read(
    mut reader: ChannelReadHalf,
    to: DuplexStream,
    linger: Option<Duration>,
) -> Result<Option<Finished>> {
    let mut to = Some(to);
    let (mut success, mut words) = (None, Vec::new());
    loop {
        let next = match linger.filter(|_| success.is_some()) {
            Some(linger) => timeout(linger, reader.wait()).await.unwrap_or(None),
            None => reader.wait().await,
        };
        match next {
            None => break,
            Some(ChannelMsg::Data { data }) => {
                // A reader that went away wants no more; the command's end still counts.
                if let Some(stream) = &mut to
                    && stream.write_all(&data).await.is_err()
                {
                    to = None;
                }
            }
            Some(ChannelMsg::Eof) => to = None,
            Some(ChannelMsg::ExtendedData { data, ext: STDERR }) => {
                words.extend_from_slice(&data);
                words.drain(..words.len().saturating_sub(WORDS_LIMIT_BYTES));
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => success = Some(exit_status == 0),
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                words.extend_from_slice(format!("\nended by SIG{signal_name:?}").as_bytes());
                success = Some(false);
            }
            Some(ChannelMsg::Failure) => {
                return Err(Error::new("the machine's SSH server runs no commands"));
            }
            Some(_) => {}
        }
    }
    let words = String::from_utf8_lossy(&words).trim().to_owned();
    Ok(success.map(|success| Finished { success, words }))
}
