//! The supervisor's socket: each request is read on a thread of its own, and answered by the supervisor.

use super::home::Home;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_protocol::{AgentRequest, Reply};

/// A pipe that is slower to say one line is taken for dead.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait when a client cannot be served for now.
const RETRY_WAIT: Duration = Duration::from_millis(50);
/// No request is longer: the kernel takes no larger environment and command either.
const REQUEST_LIMIT_BYTES: u64 = 8 << 20;

/// A request, and who waits for its answer.
pub(super) type PendingRequest = (AgentRequest, ReplyChannel);

/// Who asks.
pub(super) struct ReplyChannel(UnixStream);

impl ReplyChannel {
    pub(super) fn answer(mut self, reply: &Reply) -> Result<()> {
        let mut line = serde_json::to_vec(reply).context("cannot answer the pipe")?;
        line.push(b'\n');
        self.0.write_all(&line).context("cannot answer the pipe")
    }
}

/// Opens the socket, which only one supervisor can. The current folder is [`Home::run`].
pub(super) fn open() -> Result<UnixListener> {
    UnixListener::bind(Home::SOCKET).map_err(|error| {
        let alive = error.kind() == ErrorKind::AddrInUse && UnixStream::connect(Home::SOCKET).is_ok();
        let what = if alive {
            "a supervisor runs in this home already"
        } else {
            "cannot open the supervisor's socket"
        };
        Error::new(what).source(error).kind(Kind::Machine)
    })
}

/// Reads requests from now on. A slow client keeps neither the supervisor nor other clients waiting.
pub(super) fn listen(listener: UnixListener) -> Result<Receiver<PendingRequest>> {
    let (sender, questions) = channel();
    let accept = move || {
        for stream in listener.incoming() {
            let sender = sender.clone();
            let heard = stream.and_then(|stream| thread::Builder::new().spawn(move || hear(stream, &sender)));
            if let Err(error) = heard {
                tracing::warn!("cannot serve the pipe: {error}");
                thread::sleep(RETRY_WAIT);
            }
        }
    };
    thread::Builder::new().spawn(accept).context("cannot open the supervisor's socket")?;
    Ok(questions)
}

fn hear(stream: UnixStream, questions: &Sender<PendingRequest>) {
    match read(&stream) {
        Ok(Some(request)) => _ = questions.send((request, ReplyChannel(stream))),
        // A second supervisor looks whether there is a first.
        Ok(None) => {}
        Err(error) => tracing::warn!("{}", error.render()),
    }
}

/// The request; none from a client that goes away without a word.
fn read(stream: &UnixStream) -> Result<Option<AgentRequest>> {
    stream.set_read_timeout(Some(CLIENT_TIMEOUT)).context("cannot serve the pipe")?;
    stream.set_write_timeout(Some(CLIENT_TIMEOUT)).context("cannot serve the pipe")?;
    let mut line = String::new();
    let mut input = BufReader::new(stream.take(REQUEST_LIMIT_BYTES));
    input.read_line(&mut line).context("cannot read the pipe's request")?;
    if line.is_empty() {
        return Ok(None);
    }
    // The reader's words would quote the request, and with it secrets.
    serde_json::from_str(&line).map(Some).map_err(|_| Error::new("cannot understand the pipe's request"))
}
