//! The verb that keeps outputs in DVC's remotes, from where they are: only their pointers leave the machine this way.

use super::home::Home;
use crate::dvc::{Order, store};
use crate::error::{Context as _, Result};
use std::io::Write as _;
use std::time::Duration;

/// The caller takes a verb that says nothing for a minute for dead, and an upload may take hours.
const SIGN: Duration = Duration::from_secs(5);

/// Does what standard input orders, and tells what came of it in the last line of standard output. The lines before it are
/// empty: signs of life.
pub(super) fn run(home: &Home) -> Result<()> {
    let order: Order = serde_json::from_reader(std::io::stdin().lock()).context("cannot read the order")?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let stored = runtime.block_on(async {
        let work = home.work();
        let storing = store(&work, &order);
        tokio::pin!(storing);
        loop {
            tokio::select! {
                stored = &mut storing => break stored,
                () = tokio::time::sleep(SIGN) => tell(b"\n")?,
            }
        }
    })?;
    let mut line = serde_json::to_vec(&stored).context("cannot tell what was stored")?;
    line.push(b'\n');
    tell(&line)
}

fn tell(line: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(line).and_then(|()| out.flush()).context("the pipe is gone")
}
