//! A machine that is no more than its answers.

use super::*;
use crate::agent::protocol::{How, Reply, Status};
use crate::compute::RunId;
use crate::link::{Finished, Link, Session};
use std::sync::{Arc, Mutex};

/// A machine whose training is over. The verbs that fail, in the order in which they do.
#[derive(Clone, Default)]
struct Fake {
    failing: Arc<Mutex<Vec<&'static str>>>,
    launched: Arc<Mutex<u32>>,
}

impl Fake {
    fn fails(&self, what: &str) -> bool {
        let mut failing = self.failing.lock().unwrap();
        let fails = failing.first() == Some(&what);
        if fails {
            failing.remove(0);
        }
        fails
    }
}

impl Link for Fake {
    async fn agent(&self, verb: &str, _: &[(&str, String)]) -> Result<Session> {
        if self.fails(verb) {
            return Err(Error::new("the link is down"));
        }
        let exit = Exit { how: How::Exited(0), seconds: 1.0 };
        let status = Status { state: State::Ended(exit), fingerprint: None, checkpoint: None };
        let output = match verb {
            "ask" => serde_json::to_vec(&Reply::Status(status)).unwrap(),
            _ => b"fitting\n".to_vec(),
        };
        let finished = async { Ok(Finished { success: true, words: String::new() }) };
        let output = Box::pin(std::io::Cursor::new(output));
        Ok(Session { input: None, output: Some(output), finished: Box::pin(finished) })
    }
}

impl Compute for Fake {
    type Link = Self;

    async fn launch(&self, _: &Order) -> Result<Machine> {
        *self.launched.lock().unwrap() += 1;
        Ok(Machine { id: "m".to_owned(), description: "fake".to_owned() })
    }

    async fn find(&self, _: &RunId) -> Result<Option<Machine>> {
        Ok(None)
    }

    async fn connect(&self, _: &Machine) -> Result<Self> {
        Ok(self.clone())
    }

    async fn terminate(&self, _: &Machine) -> Result<()> {
        if self.fails("terminate") { Err(Error::new("access denied")) } else { Ok(()) }
    }
}

async fn run(fake: &Fake, harvest: impl AsyncFn() -> Result<()>) -> Result<Trained> {
    let job = Job {
        compute: fake,
        order: Order { run: RunId::new(&["r"]), orphan_grace: Duration::from_mins(10) },
        spec: Spec {
            fingerprint: String::new(),
            command: String::new(),
            environment: std::collections::BTreeMap::new(),
            max_runtime: Duration::from_mins(1),
            checkpoints: Vec::new(),
            checkpoint_interval: Duration::from_mins(1),
            resume: false,
        },
        clone_dir: Path::new("."),
        workspace: Vec::new(),
        checkpoints: Path::new("."),
        max_restarts: 0,
        shutdown: &CancellationToken::new(),
    };
    job.run(async |_, _| harvest().await).await.map(|(trained, ())| trained)
}

#[tokio::test(start_paused = true)]
async fn a_link_that_breaks_once_is_opened_again() {
    for failing in [vec!["follow"], vec!["follow", "ask"]] {
        let fake = Fake { failing: Arc::new(Mutex::new(failing)), ..Fake::default() };
        assert!(run(&fake, async || Ok(())).await.is_ok());
        assert_eq!(*fake.launched.lock().unwrap(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn outputs_whose_stream_broke_off_are_fetched_again() {
    let (fake, left) = (Fake::default(), Mutex::new(2));
    let breaks = async || {
        let mut left = left.lock().unwrap();
        *left -= 1;
        if *left > 0 { Err(Error::new("the stream of files ended early")) } else { Ok(()) }
    };
    assert!(run(&fake, breaks).await.is_ok());
    let missing = async || Err(Error::new("no such output").kind(Kind::Training));
    assert_eq!(run(&fake, missing).await.err().unwrap().exit_kind(), Kind::Training);
}

#[tokio::test(start_paused = true)]
async fn what_was_trained_survives_a_machine_that_cannot_be_ended() {
    let fake = Fake { failing: Arc::new(Mutex::new(vec!["terminate"])), ..Fake::default() };
    let leftover = run(&fake, async || Ok(())).await.ok().unwrap().leftover.unwrap();
    assert_eq!(
        leftover.render(),
        "cannot end the machine m: access denied\nStill there: machine m; it ends itself within 10m"
    );
}
