//! The agent as the pipe sees it: its verbs as calls, over any link.

use super::answers::{self, STATUS_LIMIT_BYTES, STORED_LIMIT_BYTES};
use super::stall::Meter;
use super::{Finished, Link, Session};

use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::io::SyncIoBridge;
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_base::log::count;
use trainspot_base::log::progress::Progress;
use trainspot_dvc::{Order, Outcome, salvage};
use trainspot_git::Snapshot;
use trainspot_protocol::FileSelection;
use trainspot_protocol::{AgentCommand, AgentRequest, AgentStatus, Reply};
use trainspot_transfer::{Asked, Entry, Files, Header, Held, Place, Received, Sender, receive};

/// A supervisor answers at once; a link that is slower is broken.
const ANSWER: Duration = Duration::from_secs(15);
/// How long the end of a verb is waited for once its files are refused.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(5);
/// How many files that changed while they were sent are named; the others are counted.
const CHANGES_TOLD: usize = 5;

/// Why a question had no good answer.
#[derive(Debug)]
pub enum AskError {
    /// The supervisor is there, and refuses.
    Refused(String),
    /// No answer: the link is down, or the machine gone.
    Lost(Error),
}

impl From<AskError> for Error {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(why) => Self::new(why),
            AskError::Lost(error) => error,
        }
    }
}

/// The agent on one machine, and the name by which this pipe is known to it.
pub struct Agent<L> {
    link: L,
    owner: String,
}

impl<L: Link> Agent<L> {
    /// An agent reached by `link`. `owner` must be this process's own.
    pub fn new(link: L, owner: &str) -> Self {
        Self { link, owner: owner.to_owned() }
    }

    /// Asks the supervisor for something. Each question is a sign of life.
    pub async fn ask(&self, command: AgentCommand) -> Result<AgentStatus, AskError> {
        let answer = timeout(ANSWER, self.exchange(command)).await;
        let answer = answer.unwrap_or_else(|_| Err(Error::new(format!("no answer within {ANSWER:?}"))));
        match answer.map_err(AskError::Lost)? {
            Reply::Status(status) => Ok(*status),
            Reply::Refused(why) => Err(AskError::Refused(why)),
        }
    }

    async fn exchange(&self, command: AgentCommand) -> Result<Reply> {
        let what = "cannot reach the machine's supervisor";
        let mut line =
            serde_json::to_vec(&AgentRequest { owner: self.owner.clone(), command }).context(what)?;
        line.push(b'\n');
        let session = self.link.agent("ask", &[]).await?;
        let answered = answers::answer(session, &line, STATUS_LIMIT_BYTES, &Meter::default()).await;
        let (reply, finished) = answered.context(what)?;
        // The verb's own words say more than a broken pipe does.
        finished.check(what)?;
        let reply = serde_json::from_slice(&reply.context(what)?).context(what)?;
        answers::checked(reply).context(what)
    }

    /// Sends files from `root`, which nobody changes, into the machine's workspace.
    pub async fn send(&self, root: &Path, entries: Vec<Entry>, what: &str) -> Result<()> {
        self.put(root, entries, Files::Final, what).await.map(drop)
    }

    /// Sends files that others may write to into the machine's workspace: of each what there is when its turn
    /// comes. The log names those that changed.
    pub async fn send_in_use(&self, root: &Path, entries: Vec<Entry>, what: &str) -> Result<()> {
        let changes = self.put(root, entries, Files::InUse, what).await?;
        if !changes.is_empty() {
            let more = if changes.len() > CHANGES_TOLD { "; and more" } else { "" };
            let told = &changes[..changes.len().min(CHANGES_TOLD)];
            let files = count(changes.len(), "file");
            warn!("{files} changed while the workspace was sent: {}{more}", told.join("; "));
        }
        Ok(())
    }

    async fn put(&self, root: &Path, entries: Vec<Entry>, files: Files, what: &str) -> Result<Vec<String>> {
        let Session { input, output, finished } = self.link.agent("unpack", &[]).await?;
        drop(output);
        let (root, header) = (root.to_owned(), Header { entries, unmatched: Vec::new() });
        let mut progress = Progress::bytes(what, Some(header.bytes()));
        let meter = Meter::default();
        let input = input.map(|input| meter.count(input));
        let pumped = tokio::task::spawn_blocking(move || {
            let Some(input) = input else { return Ok(Vec::new()) };
            let mut bridge = SyncIoBridge::new(input);
            let mut sender = Sender { root: &root, files, progress: &mut |bytes| progress.add(bytes) };
            let changes = sender.send(&header, &mut bridge)?;
            bridge.shutdown().context("cannot send files")?;
            Ok(changes)
        });
        let ended = meter.watch(async { Ok(tokio::join!(pumped, finished)) }).await;
        let (sent, finished) = ended.context("cannot send files")?;
        both(sent.context("cannot send files")?, finished?.check("the machine cannot take the files"))
    }

    /// Makes the machine's workspace a git repository of one commit, whose files must be there already.
    pub async fn send_commit(&self, commit: &Snapshot) -> Result<()> {
        const WHAT: &str = "cannot send the commit";
        let Session { input, output, finished } = self.link.agent("commit", &[]).await?;
        drop(output);
        let mut bytes = Vec::new();
        commit.write(&mut bytes)?;
        let sent = async {
            let Some(mut input) = input else { return Ok(()) };
            input.write_all(&bytes).await?;
            input.shutdown().await
        };
        // The machine says nothing while it works.
        let (sent, finished) = Meter::default().watch(async { Ok(tokio::join!(sent, finished)) }).await?;
        both(sent.context(WHAT), finished?.check(WHAT))
    }

    /// Brings files that the training made into `folder`. No file arrives when a required pattern matches
    /// nothing.
    pub async fn fetch(&self, wanted: &FileSelection, folder: &Path, what: &str) -> Result<Header> {
        let (asked, wanted) =
            (wanted.receive_policy()?, serde_json::to_vec(wanted).context("cannot ask for files")?);
        // A machine has no reason to send links: whatever reads or commits the files here would follow them.
        let place = Place::open(folder)?.without_links();
        self.bring("pack", &[], &wanted, Target { place, asked }, what).await.map(|received| received.header)
    }

    /// Brings a complete checkpoint into `folder`: files that these patterns match, and links to its own
    /// files. Those of its files that are `held` do not travel.
    pub async fn fetch_checkpoint(
        &self,
        number: u64,
        patterns: &[String],
        held: Held,
        folder: &Path,
    ) -> Result<Received> {
        let flags = [("--number", number.to_string())];
        let question = serde_json::to_vec(&held.hashes()).context("cannot ask for a checkpoint")?;
        let (place, asked) =
            (Place::open(folder)?.with_own_links(), Asked::matching(patterns)?.holding(held));
        self.bring("pack-checkpoint", &flags, &question, Target { place, asked }, "saving a checkpoint").await
    }

    /// Has the machine keep outputs in DVC's remotes. The order's credentials stay in the agent's memory.
    ///
    /// # Errors
    /// They could not be kept, or the link broke: asked again, the machine sends only what is missing.
    pub async fn store(&self, order: &Order) -> Result<Outcome> {
        const WHAT: &str = "cannot keep the outputs in DVC's remote";
        let question = serde_json::to_vec(order).context(WHAT)?;
        let session = self.link.agent("dvc", &[]).await?;
        let meter = Meter::default();
        let answered = meter.watch(answers::answer(session, &question, STORED_LIMIT_BYTES, &meter)).await;
        let (answer, finished) = answered.context(WHAT)?;
        // The verb's own words are final: it has tried again itself. A link that broke is not.
        finished.check(WHAT).map_err(|error| error.kind(Kind::Publication))?;
        order.read(&answer.context(WHAT)?)
    }

    /// Brings what DVC was to keep into the clone at `folder`, each file to its path there, as the machine is
    /// about to end. What the machine offers beside that is left out.
    pub async fn rescue(&self, order: &Order, folder: &Path) -> Result<Header> {
        let (place, asked) = (Place::open(folder)?.without_links(), salvage(folder, order)?);
        let order = serde_json::to_vec(order).context("cannot ask for files")?;
        let rescued =
            self.bring("rescue", &[], &order, Target { place, asked }, "rescuing the outputs").await;
        rescued.map(|received| received.header)
    }

    async fn bring(
        &self,
        verb: &str,
        flags: &[(&str, String)],
        question: &[u8],
        Target { place, asked }: Target,
        what: &str,
    ) -> Result<Received> {
        let Session { input, output, finished } = self.link.agent(verb, flags).await?;
        let what = what.to_owned();
        let meter = Meter::default();
        // Not counted: the machine may need time between the question's end and the first byte of its answer.
        let asking = async {
            if let Some(mut input) = input {
                // An agent that is gone already says so at its end.
                input.write_all(question).await.ok();
                input.shutdown().await.ok();
            }
            std::future::pending().await
        };
        let output = output.map(|output| meter.count(output));
        let pumped = tokio::task::spawn_blocking(move || {
            let output = output.ok_or_else(|| Error::new("the agent has no output"))?;
            let mut progress = None;
            let progress = std::cell::RefCell::new(&mut progress);
            receive(
                SyncIoBridge::new(output),
                &place,
                &asked,
                Files::Final,
                |header| **progress.borrow_mut() = Some(Progress::bytes(&what, Some(header.bytes()))),
                |bytes| {
                    if let Some(progress) = progress.borrow_mut().as_mut() {
                        progress.add(bytes);
                    }
                },
            )
        });
        let pumped = async { pumped.await.context("cannot receive files")? };
        // An agent may answer, and end, without having read the question.
        let ended = async {
            tokio::select! { ended = ends(pumped, finished) => Ok(ended), never = asking => never }
        };
        let ended = meter.watch(ended).await;
        let (brought, finished) = ended.context("cannot receive files")?;
        let Some(finished) = finished else { return brought };
        both(brought, finished?.check("the machine cannot send the files"))
    }

    /// Reads the training's log from `offset` on, and hands each piece to `take`. Returns at the log's end.
    ///
    /// `offset` counts what was taken, so that the next call goes on there when the link breaks.
    pub async fn follow(&self, offset: &mut u64, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        let Session { input, output, finished } =
            self.link.agent("follow", &[("--offset", offset.to_string())]).await?;
        let mut buffer = vec![0; 64 << 10];
        let reading = async {
            let Some(mut output) = output else { return Ok(()) };
            loop {
                let count = output.read(&mut buffer).await.context("the training's log broke off")?;
                if count == 0 {
                    return Ok(());
                }
                *offset += count as u64;
                take(&buffer[..count]);
            }
        };
        // The verb may wait for the end of its input.
        let reading = async {
            let read = reading.await;
            drop(input);
            read
        };
        let (read, finished) = tokio::join!(reading, finished);
        finished?.check("cannot follow the training's log")?;
        read
    }
}

/// Where files go, and which.
struct Target {
    place: Place,
    asked: Asked,
}

/// Waits for what arrives and for the verb's end. A verb whose files are not taken may go on for ever: it has
/// a moment for its last words.
async fn ends<T>(
    here: impl Future<Output = Result<T>>,
    there: impl Future<Output = Result<Finished>>,
) -> (Result<T>, Option<Result<Finished>>) {
    tokio::pin!(here, there);
    tokio::select! {
        brought = &mut here => {
            let limit = if brought.is_ok() { Duration::MAX } else { LAST_WORDS_WAIT };
            (brought, timeout(limit, there).await.ok())
        }
        finished = &mut there => (here.await, Some(finished)),
    }
}

/// The result of a transfer. When both ends failed, each may know what the other only felt as a stream that
/// broke off.
fn both<T>(here: Result<T>, there: Result<()>) -> Result<T> {
    match (here, there) {
        (Err(here), Err(there)) => Err(Error::new(there.render()).source(here)),
        (here, there) => there.and(here),
    }
}
