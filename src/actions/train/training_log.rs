//! The training's output on its way to the log.

use std::sync::Mutex;
use std::time::{Duration, Instant};
use tracing::{debug, info};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::lines::Lines;
use trainspot_base::log::progress::in_words;
use trainspot_base::mutex::lock;
use trainspot_compute::link::{Agent, AskError, Link};
use trainspot_protocol::{AgentCommand, AgentStatus, CommandExit, CommandState};

/// How long after `MAX_RUNTIME` the machine may take to end the training, and its log to arrive. Only a
/// machine that does not keep its word takes longer.
const OVERTIME_LIMIT: Duration = Duration::from_mins(10);
/// How long to wait before a link that broke is opened again.
const FOLLOW_RETRY_WAIT: Duration = Duration::from_secs(1);

/// Shows the training's output as it comes, until the training is over: its end, and its last lines.
pub(super) async fn until_the_end<L: Link>(
    agent: &Agent<L>,
    max_runtime: Duration,
) -> Result<(CommandExit, Vec<String>)> {
    let log = Mutex::new(TrainingLog::new());
    let reading = async {
        let mut offset = 0;
        loop {
            let followed = agent.follow(&mut offset, &mut |bytes| with(&log, |log| log.feed(bytes))).await;
            match (followed, agent.ask(AgentCommand::Heartbeat).await) {
                // The log was read to its end only if following it ended well.
                (Ok(()), Ok(AgentStatus { state: CommandState::Ended(exit), .. })) => return Ok(exit),
                (_, Err(AskError::Refused(why))) => return Err(Error::new(why)),
                // Whether a machine that does not answer is lost, the heart decides.
                (followed, asked) => {
                    let why = followed.err().or_else(|| asked.err().map(Error::from));
                    let why = why.map_or("it ended too early".to_owned(), |error| chain(&error));
                    debug!("following the log again from byte {offset}: {why}");
                    tokio::time::sleep(FOLLOW_RETRY_WAIT).await;
                }
            }
        }
    };
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            with(&log, |log| log.tick(max_runtime));
        }
    };
    let exit: Result<CommandExit> = tokio::select! {
        exit = reading => exit,
        () = ticking => Err(Error::new("the clock stopped")),
        () = tokio::time::sleep(max_runtime.saturating_add(OVERTIME_LIMIT)) => Err(endless(max_runtime)),
    };
    let exit = exit?;
    let tail = with(&log, TrainingLog::finish);
    Ok((exit, tail))
}

fn endless(max_runtime: Duration) -> Error {
    let (limit, over) = (in_words(max_runtime), in_words(OVERTIME_LIMIT));
    Error::new(format!("the machine did not end the training {over} after MAX_RUNTIME ({limit})"))
        .kind(Kind::Training)
        .hint("the training may hold the machine's agent up; see what it does to other processes")
}

fn with<T>(log: &Mutex<TrainingLog>, use_it: impl FnOnce(&mut TrainingLog) -> T) -> T {
    use_it(&mut lock(log))
}

/// The training's output on its way to the log, and a sign of life where there is none.
struct TrainingLog {
    lines: Lines,
    started: Instant,
    last: Instant,
    wait: Duration,
}

impl TrainingLog {
    const FIRST_WAIT: Duration = Duration::from_secs(10);

    fn new() -> Self {
        let now = Instant::now();
        Self { lines: Lines::new(now), started: now, last: now, wait: Self::FIRST_WAIT }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let now = Instant::now();
        self.lines.feed(bytes, now, &mut trainspot_base::log::training);
        (self.last, self.wait) = (now, Self::FIRST_WAIT);
    }

    fn tick(&mut self, max_runtime: Duration) {
        let now = Instant::now();
        self.lines.tick(now, &mut trainspot_base::log::training);
        if now.duration_since(self.last) >= self.wait {
            let (so_far, most) = (in_words(self.started.elapsed()), in_words(max_runtime));
            info!("still training ({so_far} of at most {most})");
            (self.last, self.wait) = (now, (self.wait * 2).min(Duration::from_mins(5)));
        }
    }

    fn finish(&mut self) -> Vec<String> {
        self.lines.finish(Instant::now(), &mut trainspot_base::log::training);
        self.lines.tail()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt as _, duplex};
    use trainspot_compute::link::{RunningVerb, VerbExit};

    /// A machine on which the training never ends, and whose log never does, either, if `is_followed`.
    struct Endless {
        is_followed: bool,
    }

    impl Link for Endless {
        async fn agent(&self, verb: &str, _: &[(&str, String)]) -> Result<RunningVerb> {
            const RUNNING: &str = r#"{"status":{"state":"running","fingerprint":null,"checkpoint":null,"unsaved":null,"notice":null,"runner":null}}"#;
            let (output, mut speaking) = duplex(1 << 10);
            let is_endless = verb == "follow" && self.is_followed;
            let finished = async move {
                if is_endless {
                    std::future::pending::<()>().await;
                }
                speaking.write_all(RUNNING.as_bytes()).await.ok();
                Ok(VerbExit { success: true, stderr_tail: String::new() })
            };
            Ok(RunningVerb { input: None, output: Some(Box::pin(output)), exit: Box::pin(finished) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_never_ends_the_training_is_not_believed_for_ever() {
        let max_runtime = Duration::from_hours(2);
        for is_followed in [false, true] {
            let (agent, start) = (Agent::new(Endless { is_followed }, "test"), tokio::time::Instant::now());
            let error = until_the_end(&agent, max_runtime).await.unwrap_err();
            assert_eq!(error.exit_kind(), Kind::Training);
            assert!(
                error.render().contains("did not end the training 10m after MAX_RUNTIME (2h)"),
                "{}",
                error.render()
            );
            assert!(start.elapsed() < max_runtime + OVERTIME_LIMIT + Duration::from_secs(2));
        }
    }
}
