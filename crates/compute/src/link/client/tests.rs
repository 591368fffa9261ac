//! Which failures of a call the next one may mend.

use super::*;
use tokio::io::duplex;

/// A link over which no verb starts, or over which each says `answer` and ends as `exit`.
enum Scripted {
    Down,
    Ends { answer: Vec<u8>, exit: VerbExit },
}

impl Scripted {
    fn fails() -> Self {
        let exit = VerbExit { success: false, stderr_tail: "ERROR: the disk is full".to_owned() };
        Self::Ends { answer: Vec::new(), exit }
    }

    fn answers(answer: impl Into<Vec<u8>>) -> Self {
        let exit = VerbExit { success: true, stderr_tail: String::new() };
        Self::Ends { answer: answer.into(), exit }
    }
}

impl Link for Scripted {
    async fn agent(&self, _: &str, _: &[(&str, String)]) -> Result<RunningVerb> {
        let Self::Ends { answer, exit } = self else {
            return Err(Error::new("the link is down").transient());
        };
        let (mut speaking, output) = duplex(1 << 16);
        speaking.write_all(answer).await.context("cannot answer")?;
        let exit = exit.clone();
        Ok(RunningVerb {
            input: Some(Box::pin(tokio::io::sink())),
            output: Some(Box::pin(output)),
            exit: Box::pin(async { Ok(exit) }),
        })
    }
}

fn agent(link: Scripted) -> Agent<Scripted> {
    Agent::new(link, "test")
}

/// The kind of an error, and whether it is transient.
fn nature<T>(done: Result<T>) -> (Kind, bool) {
    let error = done.map(drop).unwrap_err();
    (error.exit_kind(), error.is_transient())
}

#[tokio::test]
async fn a_supervisor_that_refuses_is_not_asked_again_and_one_that_is_silent_is() {
    let ask = async |link| nature(agent(link).ask(AgentCommand::Heartbeat).await.map_err(Error::from));
    for silent in [Scripted::Down, Scripted::fails(), Scripted::answers("")] {
        assert_eq!(ask(silent).await, (Kind::Unexpected, true));
    }
    assert_eq!(ask(Scripted::answers(r#"{"refused":"it is held"}"#)).await, (Kind::Unexpected, false));
}

#[tokio::test]
async fn files_that_are_refused_are_not_fetched_again_and_those_that_did_not_arrive_are() {
    let folder = tempfile::tempdir().unwrap();
    let wanted = FileSelection { required: vec!["model".to_owned()], ..FileSelection::default() };
    let fetch = async |link| nature(agent(link).fetch(&wanted, folder.path(), "").await);
    for broken in [Scripted::Down, Scripted::fails(), Scripted::answers("")] {
        assert_eq!(fetch(broken).await, (Kind::Unexpected, true));
    }
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("other"), "x").unwrap();
    let entries = vec![BundleEntry::look(elsewhere.path(), Path::new("other")).unwrap()];
    let mut bundle = Vec::new();
    BundleSender { root: elsewhere.path(), files: FileStability::Final, progress: &mut |_| {} }
        .send(
            &BundleHeader { entries: [entries.clone(), entries].concat(), unmatched: Vec::new() },
            &mut bundle,
        )
        .unwrap();
    assert_eq!(fetch(Scripted::answers(bundle)).await, (Kind::Training, false));
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_not_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model"), "x").unwrap();
    let entry = BundleEntry::look(folder.path(), Path::new("model")).unwrap();
    let send = async |link| nature(agent(link).send(folder.path(), vec![entry.clone()], "").await);
    assert_eq!(send(Scripted::fails()).await, (Kind::Unexpected, true));
    std::fs::remove_file(folder.path().join("model")).unwrap();
    assert_eq!(send(Scripted::fails()).await, (Kind::Unexpected, false));
}

#[tokio::test]
async fn an_upload_that_failed_is_not_made_again_and_one_whose_link_broke_is() {
    let request = StoreRequest::default();
    let store = async |link| nature(agent(link).store(&request).await);
    assert_eq!(store(Scripted::Down).await, (Kind::Unexpected, true));
    assert_eq!(store(Scripted::fails()).await, (Kind::Publication, false));
    assert!(!store(Scripted::answers("no answer of DVC's")).await.1);
}
