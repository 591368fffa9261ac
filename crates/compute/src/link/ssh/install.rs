//! Installs the agent on a machine that has nothing but a POSIX shell and gzip: sends the program, proves it,
//! and starts its supervisor.

use super::SshLink;
use crate::link::RunningVerb;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use trainspot_base::error::{Context as _, Error, Result};

/// The folder of the agent and its home, as the shell reads it.
const AGENT_FOLDER: &str = "\"$HOME\"/.trainspot";
/// How long sending the program may take: ten megabytes over the slowest link that could serve a training.
const SEND_TIMEOUT: Duration = Duration::from_mins(5);
/// How long the supervisor's start may take. The script itself gives up after 20 s.
const START_TIMEOUT: Duration = Duration::from_secs(40);
/// How long the output of a script that has ended must be silent: its background processes may still print.
const OUTPUT_LINGER: Duration = Duration::from_secs(1);
/// The longest line of a script's output. Longer ones are shown in pieces.
const LINE_LIMIT_BYTES: usize = 4 << 10;
/// How many of a failed script's last lines its error repeats.
const LAST_LINES_TOLD: usize = 5;

/// A compressed program, named by its hash.
#[derive(Clone)]
pub struct PackedAgent {
    gzip: bytes::Bytes,
    /// The beginning of its BLAKE3 hash.
    hash: String,
}

impl PackedAgent {
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

fn pack(path: &Path) -> std::io::Result<PackedAgent> {
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
    Ok(PackedAgent { gzip: encoder.finish()?.into(), hash })
}

/// An agent's command line for a shell. Nothing in it may be secret: everybody on the machine can read it.
pub(super) fn command(agent: &str, verb: &str, flags: &[(&str, String)]) -> String {
    let flags: Vec<_> = flags.iter().map(|(name, value)| format!(" {name} {}", quoted(value))).collect();
    format!("{AGENT_FOLDER}/{agent} agent {verb} --home {AGENT_FOLDER}/home{}", flags.concat())
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A script, wrapped for whatever login shell the machine's user has.
fn in_posix_shell(script: &str) -> String {
    format!("exec sh -c {}", quoted(script))
}

/// The script that asks for the program by printing `send`, unless the machine has it, and receives it.
/// Gzip's checksum proves that it arrived whole.
fn receive_script(name: &str) -> String {
    format!(
        r#"cd && umask 077 && mkdir -p .trainspot && cd .trainspot || exit
[ -x {name} ] && exit
new={name}.$$
trap 'rm -f "$new"' EXIT
echo send
gzip -dc >"$new" && chmod 700 "$new" && ./"$new" --version >/dev/null && mv "$new" {name}"#
    )
}

/// The script that starts the supervisor, unless it answers already, and waits until it answers. The
/// supervisor's first messages go to a file of their own; later ones go to the agent's log.
fn start_script(agent: &str, supervise: &[(&str, String)]) -> String {
    let (ask, supervise) = (command(agent, "ask", &[]), command(agent, "supervise", supervise));
    format!(
        r#"answers() {{ {ask} </dev/null >/dev/null 2>&1; }}
answers && exit
cd {AGENT_FOLDER} && umask 077 || exit
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

/// The script that runs its standard input as root, in the shell that the training gets, and ends at the
/// first failure.
const ROOT_SCRIPT: &str = r#"exec 2>&1
shell=$(command -v bash || command -v sh)
run='script=$(cat) && exec </dev/null && eval "$script"'
if [ "$(id -u)" = 0 ]; then exec "$shell" -e -c "$run"; fi
exec sudo -n "$shell" -e -c "$run""#;

impl SshLink {
    /// Puts the agent on the machine, unless it is there, and starts its supervisor with these flags, unless
    /// it runs.
    ///
    /// Returns when the supervisor answers. The supervisor outlives the connection.
    pub async fn install(&self, agent: &PackedAgent, supervise: &[(&str, String)]) -> Result<()> {
        let name = agent.file_name();
        let sent = timeout(SEND_TIMEOUT, self.send_program(agent)).await;
        sent.unwrap_or_else(|_| Err(Error::new(format!("not done after {SEND_TIMEOUT:?}"))))
            .context("cannot install the agent on the machine")?;
        let what = "cannot start the agent on the machine";
        let started = timeout(START_TIMEOUT, async {
            let script = in_posix_shell(&start_script(&name, supervise));
            self.run(&self.0.questions, &script, None).await?.exit.await?.check(what)
        });
        started
            .await
            .unwrap_or_else(|_| Err(Error::new(what).source(format!("not done after {START_TIMEOUT:?}"))))?;
        self.0.agent.set(name).ok();
        Ok(())
    }

    /// Uses the agent that another pipe has put on the machine: the newest one, if there are several.
    pub async fn find_agent(&self) -> Result<()> {
        let what = "cannot find the machine's agent";
        let script =
            in_posix_shell(&format!("cd {AGENT_FOLDER} && ls -t | grep '^agent-[0-9a-f]*$' | head -n 1"));
        let RunningVerb { output, exit, .. } = self.run(&self.0.questions, &script, None).await?;
        let mut name = String::new();
        let read = async {
            match output {
                Some(output) => output.take(64).read_to_string(&mut name).await.map(drop),
                None => Ok(()),
            }
        };
        let (read, exit) = tokio::join!(read, exit);
        exit?.check(what)?;
        read.context(what)?;
        let name = name.trim();
        if name.is_empty() {
            return Err(Error::new(what).source("there is none"));
        }
        self.0.agent.set(name.to_owned()).ok();
        Ok(())
    }

    async fn send_program(&self, agent: &PackedAgent) -> Result<()> {
        let script = in_posix_shell(&receive_script(&agent.file_name()));
        let RunningVerb { input, output, exit } = self.run(&self.0.streams, &script, None).await?;
        let talk = async {
            let (Some(mut input), Some(mut output)) = (input, output) else { return };
            // If sending fails, the other side's standard error tells why.
            if output.read_exact(&mut [0; 4]).await.is_ok() && input.write_all(&agent.gzip).await.is_ok() {
                input.shutdown().await.ok();
            }
        };
        let ((), exit) = tokio::join!(talk, exit);
        exit?.check("the machine cannot take it")
    }

    /// Runs a script as root, which needs a user who is root or whom `sudo` asks for no password. `line` gets
    /// each line of the script's output.
    ///
    /// # Errors
    /// The script failed; the error repeats its last lines.
    pub async fn run_as_root(&self, script: &str, mut line: impl FnMut(&str) + Send) -> Result<()> {
        let RunningVerb { input, output, exit } =
            self.run(&self.0.streams, &in_posix_shell(ROOT_SCRIPT), Some(OUTPUT_LINGER)).await?;
        let mut last = Vec::new();
        let talk = async {
            let (Some(mut input), Some(output)) = (input, output) else { return };
            if input.write_all(script.as_bytes()).await.is_ok() {
                input.shutdown().await.ok();
            }
            each_line(output, |text| {
                last.push(text.to_owned());
                last.drain(..last.len().saturating_sub(LAST_LINES_TOLD));
                line(text);
            })
            .await;
        };
        let ((), exit) = tokio::join!(talk, exit);
        if exit?.success {
            return Ok(());
        }
        Err(Error::new("the script that runs as root failed").source(last.join("\n")))
    }
}

/// Cuts a stream into lines. A text that a progress bar overwrites is a line, too.
async fn each_line(mut stream: impl tokio::io::AsyncRead + Unpin, mut line: impl FnMut(&str)) {
    let (mut text, mut buffer) = (Vec::new(), vec![0; LINE_LIMIT_BYTES]);
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
            if text.len() >= LINE_LIMIT_BYTES {
                flush(&mut text);
            }
        }
    }
    flush(&mut text);
}
