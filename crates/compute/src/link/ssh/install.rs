//! The agent on a machine that has nothing but a POSIX shell and gzip: sent, proved, and its watch started.

use super::SshLink;
use crate::link::Session;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use trainspot_base::error::{Context as _, Error, Result};

/// Where everything of ours is, as the shell reads it.
const BASE: &str = "\"$HOME\"/.trainspot";
/// A binary of ten megabytes takes this long over the slowest link that could serve a training.
const SENDING: Duration = Duration::from_mins(5);
/// The script itself gives up after 20 s.
const STARTING: Duration = Duration::from_secs(40);
/// How long a script's end waits for what its background processes print.
const LINGER: Duration = Duration::from_secs(1);
/// A line that is longer is shown in pieces.
const LONGEST_LINE: usize = 4 << 10;
/// How many of a failed script's last lines are told again.
const LAST_LINES: usize = 5;

/// A program, compressed, and known by what it is.
#[derive(Clone)]
pub struct Packed {
    gzip: bytes::Bytes,
    /// The beginning of its BLAKE3 hash.
    hash: String,
}

impl Packed {
    /// This program, for the machine to run as its agent. Takes a second or so, on another thread.
    pub async fn this_program() -> Result<Self> {
        Self::program(Path::new("/proc/self/exe")).await
    }

    /// The program in this file.
    pub async fn program(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let packed = tokio::task::spawn_blocking(move || pack(&path)).await;
        packed.context("cannot pack the agent")?.context("cannot pack the agent")
    }

    fn file_name(&self) -> String {
        format!("agent-{}", self.hash)
    }
}

fn pack(path: &Path) -> std::io::Result<Packed> {
    let mut file = File::open(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
        encoder.write_all(&buffer[..count])?;
    }
    let hash = hasher.finalize().to_hex()[..16].to_owned();
    Ok(Packed { gzip: encoder.finish()?.into(), hash })
}

/// An agent's command line for a shell. Nothing in it may be secret: everybody on the machine can read it.
pub(super) fn command(agent: &str, verb: &str, flags: &[(&str, String)]) -> String {
    let flags: Vec<_> = flags.iter().map(|(name, value)| format!(" {name} {}", quoted(value))).collect();
    format!("{BASE}/{agent} agent {verb} --home {BASE}/home{}", flags.concat())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A script for whatever shell logs in there.
fn posix(script: &str) -> String {
    format!("exec sh -c {}", quoted(script))
}

/// Asks for the program (`send`) unless it is there. Gzip proves by its checksum what arrived.
fn receiving(name: &str) -> String {
    format!(
        r#"cd && umask 077 && mkdir -p .trainspot && cd .trainspot || exit
[ -x {name} ] && exit
new={name}.$$
trap 'rm -f "$new"' EXIT
echo send
gzip -dc >"$new" && chmod 700 "$new" && ./"$new" --version >/dev/null && mv "$new" {name}"#
    )
}

/// Starts the watch, unless it answers already, and waits until it does. Its first words go to a file of
/// their own: later ones have the agent's log.
fn watching(agent: &str, supervise: &[(&str, String)]) -> String {
    let (ask, supervise) = (command(agent, "ask", &[]), command(agent, "supervise", supervise));
    format!(
        r#"answers() {{ {ask} </dev/null >/dev/null 2>&1; }}
answers && exit
cd {BASE} && umask 077 || exit
{supervise} </dev/null >/dev/null 2>words &
tries=0
until answers; do
  tries=$((tries + 1))
  if [ "$tries" -gt 200 ]; then echo "its socket does not answer" >&2; break; fi
  kill -0 $! 2>/dev/null || break
  sleep 0.1
done
answers && exit
cat words home/run/agent.log >&2 2>/dev/null
exit 1"#
    )
}

/// Runs what is on its standard input as root, with the shell that the training gets, and ends at the first
/// failure.
const AS_ROOT: &str = r#"exec 2>&1
shell=$(command -v bash || command -v sh)
run='script=$(cat) && exec </dev/null && eval "$script"'
if [ "$(id -u)" = 0 ]; then exec "$shell" -e -c "$run"; fi
exec sudo -n "$shell" -e -c "$run""#;

impl SshLink {
    /// Puts the agent on the machine and starts its watch with these flags, unless either is there.
    ///
    /// Returns when the watch can be asked; it lives on when the connection ends.
    pub async fn install(&self, agent: &Packed, supervise: &[(&str, String)]) -> Result<()> {
        let name = agent.file_name();
        let sent = timeout(SENDING, self.send_program(agent)).await;
        sent.unwrap_or_else(|_| Err(Error::new(format!("not done after {SENDING:?}"))))
            .context("cannot install the agent on the machine")?;
        let what = "cannot start the agent on the machine";
        let started = timeout(STARTING, async {
            let script = posix(&watching(&name, supervise));
            self.run(&self.0.questions, &script, None).await?.finished.await?.check(what)
        });
        started
            .await
            .unwrap_or_else(|_| Err(Error::new(what).source(format!("not done after {STARTING:?}"))))?;
        self.0.agent.set(name).ok();
        Ok(())
    }

    /// Takes the agent that another pipe has put on the machine: the one that was started last, if there are
    /// several.
    pub async fn find_agent(&self) -> Result<()> {
        let what = "cannot find the machine's agent";
        let script = posix(&format!("cd {BASE} && ls -t | grep '^agent-[0-9a-f]*$' | head -n 1"));
        let Session { output, finished, .. } = self.run(&self.0.questions, &script, None).await?;
        let mut name = String::new();
        let read = async {
            match output {
                Some(output) => output.take(64).read_to_string(&mut name).await.map(drop),
                None => Ok(()),
            }
        };
        let (read, finished) = tokio::join!(read, finished);
        finished?.check(what)?;
        read.context(what)?;
        let name = name.trim();
        if name.is_empty() {
            return Err(Error::new(what).source("there is none"));
        }
        self.0.agent.set(name.to_owned()).ok();
        Ok(())
    }

    async fn send_program(&self, agent: &Packed) -> Result<()> {
        let script = posix(&receiving(&agent.file_name()));
        let Session { input, output, finished } = self.run(&self.0.streams, &script, None).await?;
        let talk = async {
            let (Some(mut input), Some(mut output)) = (input, output) else { return };
            // What cannot be sent, the other side tells the reason for.
            if output.read_exact(&mut [0; 4]).await.is_ok() && input.write_all(&agent.gzip).await.is_ok() {
                input.shutdown().await.ok();
            }
        };
        let ((), finished) = tokio::join!(talk, finished);
        finished?.check("the machine cannot take it")
    }

    /// Runs a script as root: `sudo` asks for no password there, or the user is root. `line` gets each line
    /// of its output.
    ///
    /// # Errors
    /// The script failed; its last lines are told.
    pub async fn run_as_root(&self, script: &str, mut line: impl FnMut(&str) + Send) -> Result<()> {
        let Session { input, output, finished } =
            self.run(&self.0.streams, &posix(AS_ROOT), Some(LINGER)).await?;
        let mut last = Vec::new();
        let talk = async {
            let (Some(mut input), Some(output)) = (input, output) else { return };
            if input.write_all(script.as_bytes()).await.is_ok() {
                input.shutdown().await.ok();
            }
            each_line(output, |text| {
                last.push(text.to_owned());
                last.drain(..last.len().saturating_sub(LAST_LINES));
                line(text);
            })
            .await;
        };
        let ((), finished) = tokio::join!(talk, finished);
        if finished?.success {
            return Ok(());
        }
        Err(Error::new("the script that runs as root failed").source(last.join("\n")))
    }
}

/// Cuts a stream into lines; what a progress bar overwrites is a line too.
async fn each_line(mut stream: impl tokio::io::AsyncRead + Unpin, mut line: impl FnMut(&str)) {
    let (mut text, mut buffer) = (Vec::new(), vec![0; LONGEST_LINE]);
    let mut flush = |text: &mut Vec<u8>| {
        if !text.is_empty() {
            line(&String::from_utf8_lossy(text));
            text.clear();
        }
    };
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        for byte in &buffer[..count] {
            match byte {
                b'\n' | b'\r' => flush(&mut text),
                byte => text.push(*byte),
            }
            if text.len() >= LONGEST_LINE {
                flush(&mut text);
            }
        }
    }
    flush(&mut text);
}
