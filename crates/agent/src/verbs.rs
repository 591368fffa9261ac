//! The short-lived verbs: each does one thing over its standard input and output.

use super::checkpoint;
use super::home::Home;
use super::selection::selected;
use blake3::Hash;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use trainspot_base::error::{Context as _, Result};
use trainspot_protocol::FileSelection;
use trainspot_transfer::{BundleHeader, BundleSender, FileStability, ReceivePolicy, TargetFolder, receive};

/// How often the log is looked at for new bytes.
const LOG_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Hands one request from standard input to the supervisor, and its reply to standard output.
///
/// Neither by `std::io::copy`, which has the kernel move the bytes: the kernel locks the caller's pipe for as
/// long as the supervisor says nothing, and a caller that gives up could not even close it.
pub(super) fn ask(home: &Home) -> Result<()> {
    std::env::set_current_dir(home.run()).context("the machine is gone")?;
    let mut socket = UnixStream::connect(Home::SOCKET).context("the machine's supervisor is gone")?;
    let (mut request, mut reply) = (Vec::new(), Vec::new());
    std::io::stdin().lock().read_to_end(&mut request).context("cannot read the request")?;
    socket.write_all(&request).context("cannot ask the supervisor")?;
    socket.shutdown(std::net::Shutdown::Write).context("cannot ask the supervisor")?;
    socket.read_to_end(&mut reply).context("cannot read the supervisor's answer")?;
    let mut out = std::io::stdout().lock();
    out.write_all(&reply).and_then(|()| out.flush()).context("cannot pass the answer on")
}

/// Puts a bundle from standard input into the workspace.
pub(super) fn unpack(home: &Home) -> Result<()> {
    let (place, policy) = (TargetFolder::open(&home.work())?, ReceivePolicy::accept_all());
    receive(std::io::stdin().lock(), &place, &policy, FileStability::InUse, |_| {}, |_| {}).map(drop)
}

/// Sends the files that standard input asks for. The list alone, when a required pattern matches nothing.
pub(super) fn pack(home: &Home) -> Result<()> {
    let wanted: FileSelection =
        serde_json::from_reader(std::io::stdin().lock()).context("cannot read what is wanted")?;
    let header = selected(&home.work(), &wanted)?;
    let mut sender = BundleSender { root: &home.work(), files: FileStability::Final, progress: &mut |_| {} };
    sender.send(&header, std::io::stdout().lock()).map(drop)
}

/// Sends a complete checkpoint, each of whose files must have its hash. Standard input lists hashes of files,
/// in hexadecimal: whoever asks holds those files already.
pub(super) fn pack_checkpoint(home: &Home, number: u64) -> Result<()> {
    let folder = home.checkpoints().join(number.to_string());
    let manifest = checkpoint::manifest(&folder)?;
    manifest.check().with_context(|| format!("checkpoint {number} is damaged"))?;
    let hashes =
        parsed::<Vec<_>>(&manifest.hashes).with_context(|| format!("checkpoint {number} is damaged"))?;
    let held: Vec<String> =
        serde_json::from_reader(std::io::stdin().lock()).context("cannot read which files are held")?;
    let held = parsed(&held).context("cannot read which files are held")?;
    let header = BundleHeader { entries: manifest.entries, unmatched: Vec::new() };
    let files = checkpoint::files(&folder);
    let mut sender = BundleSender { root: &files, files: FileStability::Final, progress: &mut |_| {} };
    sender
        .send_proved(&header, &hashes, &held, std::io::stdout().lock())
        .with_context(|| format!("checkpoint {number} is damaged"))
}

fn parsed<T: FromIterator<Hash>>(hashes: &[String]) -> Result<T> {
    hashes.iter().map(|hash| Hash::from_hex(hash).context("not a hash")).collect()
}

/// Sends the training's log from `offset` on, until the training is over or the caller is gone.
pub(super) fn follow(home: &Home, offset: u64) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; 64 << 10];
    let mut log = None;
    loop {
        // Looked at before the log: what is written until the end is then read.
        let over = home.exit().exists() || !home.run().exists();
        if log.is_none() {
            log = File::open(home.log()).ok();
            if let Some(log) = &mut log {
                log.seek(SeekFrom::Start(offset)).context("cannot read the training's log")?;
            }
        }
        let count = log
            .as_mut()
            .map_or(Ok(0), |log| log.read(&mut buffer))
            .context("cannot read the training's log")?;
        if count > 0 {
            out.write_all(&buffer[..count])
                .and_then(|()| out.flush())
                .context("cannot send the training's log")?;
        } else if over || caller_is_gone() {
            return Ok(());
        }
    }
}

/// Waits a moment, and tells whether the other end of standard input was closed meanwhile.
fn caller_is_gone() -> bool {
    let stdin = std::io::stdin();
    let look = Timespec::try_from(LOG_POLL_INTERVAL).ok();
    let mut input = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut input, look.as_ref()).is_ok_and(|ready| ready > 0)
        && input[0].revents().intersects(PollFlags::HUP | PollFlags::IN | PollFlags::ERR)
}
