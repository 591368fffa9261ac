//! The agent as the pipe sees it: its verbs as calls, over any link.

use super::answers::{self, STATUS_LIMIT_BYTES, STORED_LIMIT_BYTES};
use super::stall::{Metered, within_limits};
use super::{Link, RunningVerb, VerbExit};

use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_util::io::SyncIoBridge;
use tracing::warn;
use trainspot_base::error::{Context as _, Error, Kind, Result};
use trainspot_base::log::count;
use trainspot_base::log::progress::Progress;
use trainspot_base::meter::Meter;
use trainspot_dvc::{StoreRequest, StoreResult, salvage};
use trainspot_git::Snapshot;
use trainspot_protocol::FileSelection;
use trainspot_protocol::{AgentCommand, AgentRequest, AgentStatus, Reply, RestoreRequest};
use trainspot_transfer::{
    BundleEntry, BundleHeader, BundleSender, FileStability, HeldFiles, ReceivePolicy, Received, TargetFolder,
    receive,
};

/// A supervisor answers at once: without an answer after this time, the link is broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait for a verb's exit once its files were refused.
const EXIT_WAIT: Duration = Duration::from_secs(5);
/// How many of the files that changed while they were sent are named; all are counted.
const CHANGES_NAMED: usize = 5;

/// Why a supervisor did not do what it was asked for.
#[derive(Debug)]
pub enum AskError {
    /// The supervisor refused, for this reason.
    Refused(String),
    /// No answer came: the link is down, or the machine has ended.
    NoAnswer(Error),
}

impl From<AskError> for Error {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(why) => Self::new(why),
            AskError::NoAnswer(error) => error.transient(),
        }
    }
}

/// The agent on one machine, and the owner's name by which this pipe identifies itself to it.
pub struct Agent<L> {
    link: L,
    owner: String,
}

impl<L: Link> Agent<L> {
    /// An agent that is reached by `link`. `owner` must be unique to this process.
    pub fn new(link: L, owner: &str) -> Self {
        Self { link, owner: owner.to_owned() }
    }

    /// Asks the supervisor for something. Each question is a sign of life.
    pub async fn ask(&self, command: AgentCommand) -> Result<AgentStatus, AskError> {
        let answer = timeout(ANSWER_TIMEOUT, self.exchange(command)).await;
        let answer =
            answer.unwrap_or_else(|_| Err(Error::new(format!("no answer within {ANSWER_TIMEOUT:?}"))));
        match answer.map_err(AskError::NoAnswer)? {
            Reply::Status(status) => Ok(*status),
            Reply::Refused(why) => Err(AskError::Refused(why)),
        }
    }

    async fn exchange(&self, command: AgentCommand) -> Result<Reply> {
        let what = "cannot reach the machine's supervisor";
        let mut line =
            serde_json::to_vec(&AgentRequest { owner: self.owner.clone(), command }).context(what)?;
        line.push(b'\n');
        let running = self.link.agent("ask", &[]).await?;
        let answered = answers::answer(running, &line, STATUS_LIMIT_BYTES, &Meter::default()).await;
        let (reply, exit) = answered.context(what)?;
        // The verb's own messages say more than a broken pipe does.
        exit.check(what)?;
        let reply = serde_json::from_slice(&reply.context(what)?).context(what)?;
        answers::checked(reply).context(what)
    }

    /// Sends files from `root`, which nobody changes, into the machine's workspace.
    pub async fn send(&self, root: &Path, entries: Vec<BundleEntry>, what: &str) -> Result<()> {
        self.upload(root, entries, FileStability::Final, what).await.map(drop)
    }

    /// Sends files, to which others may write meanwhile, into the machine's workspace. Each file is sent as
    /// it is when its turn comes; the log names files that changed.
    pub async fn send_in_use(&self, root: &Path, entries: Vec<BundleEntry>, what: &str) -> Result<()> {
        let changes = self.upload(root, entries, FileStability::InUse, what).await?;
        if !changes.is_empty() {
            let more = if changes.len() > CHANGES_NAMED { "; and more" } else { "" };
            let told = &changes[..changes.len().min(CHANGES_NAMED)];
            let files = count(changes.len(), "file");
            warn!("{files} changed while the workspace was sent: {}{more}", told.join("; "));
        }
        Ok(())
    }

    async fn upload(
        &self,
        root: &Path,
        entries: Vec<BundleEntry>,
        files: FileStability,
        what: &str,
    ) -> Result<Vec<String>> {
        let RunningVerb { input, output, exit } = self.link.agent("unpack", &[]).await?;
        drop(output);
        let (root, header) = (root.to_owned(), BundleHeader { entries, unmatched: Vec::new() });
        let mut progress = Progress::bytes(what, Some(header.bytes()));
        let meter = Meter::default();
        let input = input.map(|input| Metered::new(input, &meter));
        let pumped = tokio::task::spawn_blocking(move || {
            let Some(input) = input else { return Ok(Vec::new()) };
            let mut bridge = SyncIoBridge::new(input);
            let mut sender = BundleSender { root: &root, files, progress: &mut |bytes| progress.add(bytes) };
            let changes = sender.send(&header, &mut bridge)?;
            bridge.shutdown().context("cannot send files").map_err(Error::transient)?;
            Ok(changes)
        });
        let ended = within_limits(&meter, async { Ok(tokio::join!(pumped, exit)) }).await;
        let (sent, exit) = ended.context("cannot send files")?;
        merge_results(sent.context("cannot send files")?, exit?.check("the machine cannot take the files"))
    }

    /// Makes the machine's workspace a git repository of one commit, whose files must be there already.
    pub async fn send_commit(&self, commit: &Snapshot) -> Result<()> {
        const FAILURE_TEXT: &str = "cannot send the commit";
        let RunningVerb { input, output, exit } = self.link.agent("commit", &[]).await?;
        drop(output);
        let mut bytes = Vec::new();
        commit.write(&mut bytes)?;
        let sent = async {
            let Some(mut input) = input else { return Ok(()) };
            input.write_all(&bytes).await?;
            input.shutdown().await
        };
        // The machine says nothing while it works.
        let (sent, exit) = within_limits(&Meter::default(), async { Ok(tokio::join!(sent, exit)) }).await?;
        let sent = sent.context(FAILURE_TEXT).map_err(Error::transient);
        merge_results(sent, exit?.check(FAILURE_TEXT))
    }

    /// Has the machine restore a checkpoint that another machine left in a store.
    ///
    /// # Errors
    /// The store does not have the checkpoint as its manifest says, or the link broke, which is transient.
    pub async fn restore(&self, request: &RestoreRequest) -> Result<()> {
        const FAILURE_TEXT: &str = "cannot restore the checkpoint";
        let question = serde_json::to_vec(request).context(FAILURE_TEXT)?;
        let running = self.link.agent("restore", &[]).await?;
        let meter = Meter::default();
        let answered =
            within_limits(&meter, answers::answer(running, &question, STATUS_LIMIT_BYTES, &meter)).await;
        let (_, exit) = answered.context(FAILURE_TEXT)?;
        exit.check(FAILURE_TEXT)
    }

    /// Downloads files of the training into `folder`. No file arrives when a required pattern matches
    /// nothing.
    pub async fn fetch(&self, wanted: &FileSelection, folder: &Path, what: &str) -> Result<BundleHeader> {
        let (policy, wanted) =
            (wanted.receive_policy()?, serde_json::to_vec(wanted).context("cannot ask for files")?);
        // A machine has no reason to send links: whatever reads or commits the files here would follow them.
        let place = TargetFolder::open(folder)?.without_links();
        self.download("pack", &[], &wanted, FetchTarget { place, policy }, what)
            .await
            .map(|received| received.header)
    }

    /// Downloads a complete checkpoint into `folder`: files that these patterns match, and links to the
    /// checkpoint's own files. Files that are `held` here already are not sent.
    pub async fn fetch_checkpoint(
        &self,
        number: u64,
        patterns: &[String],
        held: HeldFiles,
        folder: &Path,
    ) -> Result<Received> {
        let flags = [("--number", number.to_string())];
        let question = serde_json::to_vec(&held.hashes()).context("cannot ask for a checkpoint")?;
        let (place, policy) = (
            TargetFolder::open(folder)?.with_own_links(),
            ReceivePolicy::matching(patterns)?.with_held_files(held),
        );
        self.download(
            "pack-checkpoint",
            &flags,
            &question,
            FetchTarget { place, policy },
            "saving a checkpoint",
        )
        .await
    }

    /// Has the machine upload outputs to DVC's remotes. The credentials in `request` stay in the agent's
    /// memory.
    ///
    /// # Errors
    /// An upload failed, or the link broke, which is transient. Asked again, the machine uploads only what is
    /// missing.
    pub async fn store(&self, request: &StoreRequest) -> Result<StoreResult> {
        const FAILURE_TEXT: &str = "cannot keep the outputs in DVC's remote";
        let question = serde_json::to_vec(request).context(FAILURE_TEXT)?;
        let running = self.link.agent("dvc", &[]).await?;
        let meter = Meter::default();
        let answered =
            within_limits(&meter, answers::answer(running, &question, STORED_LIMIT_BYTES, &meter)).await;
        let (answer, exit) = answered.context(FAILURE_TEXT)?;
        // The verb has retried already.
        exit.check(FAILURE_TEXT).map_err(|error| error.kind(Kind::Publication).permanent())?;
        let answer = answer.context(FAILURE_TEXT).map_err(Error::transient)?;
        StoreResult::parse(&answer, request)
    }

    /// Downloads the outputs that DVC was to keep into the clone at `folder`, each file to its path there, as
    /// the machine is about to end. Files that were not asked for are left out.
    pub async fn rescue(&self, request: &StoreRequest, folder: &Path) -> Result<BundleHeader> {
        let (place, policy) = (TargetFolder::open(folder)?.without_links(), salvage(folder, request)?);
        let request = serde_json::to_vec(request).context("cannot ask for files")?;
        let rescued = self
            .download("rescue", &[], &request, FetchTarget { place, policy }, "rescuing the outputs")
            .await;
        rescued.map(|received| received.header)
    }

    async fn download(
        &self,
        verb: &str,
        flags: &[(&str, String)],
        question: &[u8],
        FetchTarget { place, policy }: FetchTarget,
        what: &str,
    ) -> Result<Received> {
        let RunningVerb { input, output, exit } = self.link.agent(verb, flags).await?;
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
        let output = output.map(|output| Metered::new(output, &meter));
        let pumped = tokio::task::spawn_blocking(move || {
            let output = output.ok_or_else(|| Error::new("the agent has no output"))?;
            let mut progress = None;
            let progress = std::cell::RefCell::new(&mut progress);
            receive(
                SyncIoBridge::new(output),
                &place,
                &policy,
                FileStability::Final,
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
            tokio::select! { ended = await_both_ends(pumped, exit) => Ok(ended), never = asking => never }
        };
        let ended = within_limits(&meter, ended).await;
        let (received, exit) = ended.context("cannot receive files")?;
        let Some(exit) = exit else { return received };
        merge_results(received, exit?.check("the machine cannot send the files"))
    }

    /// Reads the training's log from byte `offset` on, and hands each piece to `take`. Returns at the log's
    /// end.
    ///
    /// `offset` grows by each piece that was taken: when the link breaks, the next call goes on there.
    pub async fn follow(&self, offset: &mut u64, take: &mut (impl FnMut(&[u8]) + Send)) -> Result<()> {
        let RunningVerb { input, output, exit } =
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
        let (read, exit) = tokio::join!(reading, exit);
        exit?.check("cannot follow the training's log")?;
        read
    }
}

/// Which files to fetch, and the folder that they go to.
struct FetchTarget {
    place: TargetFolder,
    policy: ReceivePolicy,
}

/// Awaits the files' arrival here and the verb's exit there. A verb whose files are refused may go on for
/// ever: its exit is awaited for [`EXIT_WAIT`].
async fn await_both_ends<T>(
    here: impl Future<Output = Result<T>>,
    there: impl Future<Output = Result<VerbExit>>,
) -> (Result<T>, Option<Result<VerbExit>>) {
    tokio::pin!(here, there);
    tokio::select! {
        received = &mut here => {
            let limit = if received.is_ok() { Duration::MAX } else { EXIT_WAIT };
            (received, timeout(limit, there).await.ok())
        }
        exit = &mut there => (here.await, Some(exit)),
    }
}

/// The result of a transfer from those of its two ends. When both failed, both reasons are kept: each end may
/// know what the other only saw as a broken stream.
fn merge_results<T>(here: Result<T>, there: Result<()>) -> Result<T> {
    match (here, there) {
        (Err(here), Err(there)) => Err(Error::new(there.render()).source(here)),
        (here, there) => there.and(here),
    }
}

#[cfg(test)]
mod tests;
