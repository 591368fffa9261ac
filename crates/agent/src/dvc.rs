//! The verbs about what DVC keeps: one sends outputs to its remotes, from where they are, so that only their
//! pointers come to the pipe; the other hands them to the pipe when that failed.

use super::home::Home;
use std::io::Write as _;
use std::time::Duration;
use trainspot_base::error::{Context as _, Result};
use trainspot_dvc::{StoreRequest, lay_out, store};
use trainspot_transfer::{BundleHeader, BundleSender, FileStability, everything_behind_links};

/// The caller takes a verb that says nothing for a minute for dead, and an upload may take hours.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Does what the request on standard input says, and tells what came of it in the last line of standard
/// output. The lines before it are empty: signs of life.
pub(super) fn run(home: &Home) -> Result<()> {
    let request = request()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let outcome = runtime.block_on(while_telling(store(&home.work(), &request)))?;
    let mut line = serde_json::to_vec(&outcome).context("cannot tell what was stored")?;
    line.push(b'\n');
    tell(&line)
}

/// Sends what the request on standard input has kept, as a bundle of files.
pub(super) fn rescue(home: &Home) -> Result<()> {
    let request = request()?;
    let folder = tempfile::tempdir_in(home.run()).context("cannot make a folder")?;
    lay_out(&home.work(), &request, folder.path())?;
    let header = BundleHeader { entries: everything_behind_links(folder.path())?, unmatched: Vec::new() };
    let mut sender = BundleSender { root: folder.path(), files: FileStability::Final, progress: &mut |_| {} };
    sender.send(&header, std::io::stdout().lock()).map(drop)
}

/// The request on standard input. What is secret in it is hidden before a word is said.
fn request() -> Result<StoreRequest> {
    let request: StoreRequest =
        serde_json::from_reader(std::io::stdin().lock()).context("cannot read the order")?;
    trainspot_base::log::hide(request.secrets());
    Ok(request)
}

/// Awaits work, and writes empty lines to standard output meanwhile: signs of life.
pub(super) async fn while_telling<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(KEEPALIVE_INTERVAL) => tell(b"\n")?,
        }
    }
}

fn tell(line: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line).and_then(|()| out.flush()).context("the pipe is gone")
}
