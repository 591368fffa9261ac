//! A command on the machine by one SSH channel: its streams, its standard error and its exit.

use super::connection::Connection;
use crate::link::{RunningVerb, VerbExit};
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

/// How much of the end of a command's standard error is kept.
const STDERR_TAIL_BYTES: usize = 8 << 10;
/// How much either stream buffers: enough that its two ends need not take turns.
const STREAM_BUFFER_BYTES: usize = 1 << 20;
/// How much input is sent at once.
const SENT_PIECE_BYTES: usize = 128 << 10;
/// The standard error's number in the protocol (RFC 4254, 5.2).
const STDERR_STREAM: u32 = 1;

/// Starts a command. Dropping `exit` of the returned value closes the channel, which ends the command.
///
/// A process that the command leaves running may hold the output open: once the command has ended, the output
/// is read until it is silent for `linger`.
pub(super) async fn start(
    connection: Arc<Connection>,
    channel: Channel<Msg>,
    command: &str,
    linger: Option<Duration>,
) -> Result<RunningVerb> {
    channel.exec(true, command).await.map_err(|error| broken_connection(&connection).source(error))?;
    let (input, from) = duplex(STREAM_BUFFER_BYTES);
    let (output, to) = duplex(STREAM_BUFFER_BYTES);
    let mut pump = AbortOnDrop(tokio::spawn(pump(connection, channel, from, to, linger)));
    let exit = async move { (&mut pump.0).await.context("cannot wait for the machine")? };
    Ok(RunningVerb { input: Some(Box::pin(input)), output: Some(Box::pin(output)), exit: Box::pin(exit) })
}

/// Aborts a task when it is dropped.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Closes a channel when it is dropped. Closing a closed channel does nothing.
struct CloseOnDrop(Arc<ChannelWriteHalf<Msg>>);

impl Drop for CloseOnDrop {
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
) -> Result<VerbExit> {
    let (reader, writer) = channel.split();
    let channel = CloseOnDrop(Arc::new(writer));
    let feeding = async {
        // A connection that is gone ends the reading too, which knows more.
        send_input(&channel.0, from).await.ok();
        pending().await
    };
    let exit = tokio::select! {
        exit = read_output(reader, to, linger) => exit,
        exit = feeding => exit,
    };
    exit?.ok_or_else(|| broken_connection(&connection))
}

fn broken_connection(connection: &Connection) -> Error {
    Error::new(format!("the connection to {} broke", connection.address())).transient()
}

async fn send_input(writer: &ChannelWriteHalf<Msg>, mut from: DuplexStream) -> Result<(), russh::Error> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(SENT_PIECE_BYTES);
        if from.read_buf(&mut buffer).await? == 0 {
            return writer.eof().await;
        }
        writer.data_bytes(buffer.split().freeze()).await?;
    }
}

/// Reads a channel to its end; `None` when the channel ended without the command's exit.
async fn read_output(
    mut reader: ChannelReadHalf,
    to: DuplexStream,
    linger: Option<Duration>,
) -> Result<Option<VerbExit>> {
    let mut to = Some(to);
    let (mut success, mut stderr_tail) = (None, Vec::new());
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
            Some(ChannelMsg::ExtendedData { data, ext: STDERR_STREAM }) => {
                stderr_tail.extend_from_slice(&data);
                stderr_tail.drain(..stderr_tail.len().saturating_sub(STDERR_TAIL_BYTES));
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => success = Some(exit_status == 0),
            Some(ChannelMsg::ExitSignal { signal_name, .. }) => {
                stderr_tail.extend_from_slice(format!("\nended by SIG{signal_name:?}").as_bytes());
                success = Some(false);
            }
            Some(ChannelMsg::Failure) => {
                return Err(Error::new("the machine's SSH server runs no commands"));
            }
            Some(_) => {}
        }
    }
    let stderr_tail = String::from_utf8_lossy(&stderr_tail).trim().to_owned();
    Ok(success.map(|success| VerbExit { success, stderr_tail }))
}
