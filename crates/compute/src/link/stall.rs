//! A transfer's deadlines. Its whole may take as long as its bytes do; each pause in it is limited.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::sleep;
use trainspot_base::error::{Error, Result};
use trainspot_base::log::progress::in_words;
use trainspot_base::meter::Meter;

/// A transfer in which nothing moves for this long is broken, whatever the link reports.
const PAUSE_LIMIT: Duration = Duration::from_mins(1);
/// How long a machine may take until its first byte: it reads a whole checkpoint first, to prove it, at the
/// speed of its disk.
const FIRST_BYTE_LIMIT: Duration = Duration::from_mins(10);
/// The longest transfer: a machine that sends a byte now and then would keep the pipe for ever.
const TRANSFER_LIMIT: Duration = Duration::from_hours(24);

/// A stream whose bytes are counted.
pub(super) struct Metered<S> {
    stream: S,
    meter: Meter,
}

impl<S> Metered<S> {
    pub(super) fn new(stream: S, meter: &Meter) -> Self {
        Self { stream, meter: meter.clone() }
    }
}

/// Awaits the `work` whose bytes `meter` counts, unless the transfer pauses for too long or lasts for more
/// than [`TRANSFER_LIMIT`].
pub(super) async fn within_limits<T>(meter: &Meter, work: impl Future<Output = Result<T>>) -> Result<T> {
    let limit = |moved| if moved == 0 { FIRST_BYTE_LIMIT } else { PAUSE_LIMIT };
    tokio::select! {
        done = work => done,
        stalled = meter.stalled(limit) => Err(Error::new(format!("nothing moved for {}", in_words(stalled))).transient()),
        () = sleep(TRANSFER_LIMIT) => Err(Error::new(format!("not done after {}", in_words(TRANSFER_LIMIT)))),
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.meter.add((buffer.filled().len() - before) as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.meter.add(count as u64);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::link::{Agent, Link, RunningVerb, VerbExit};
    use std::future::pending;
    use std::path::Path;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;
    use trainspot_git::Snapshot;
    use trainspot_protocol::AgentCommand;
    use trainspot_protocol::FileSelection;
    use trainspot_transfer::{BundleEntry, HeldFiles};

    /// More than the time between two looks at a meter.
    const CHECK_INTERVAL: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_slow_transfer_goes_on_and_one_that_pauses_ends() {
        let (meter, start) = (Meter::default(), Instant::now());
        let slow = PAUSE_LIMIT.saturating_sub(2 * CHECK_INTERVAL);
        let (mut from, to) = duplex(1);
        let mut to = Metered::new(to, &meter);
        let sending = async {
            for _ in 0..10 {
                sleep(slow).await;
                from.write_all(b"x").await.unwrap();
            }
            pending::<()>().await;
        };
        let reading = async {
            let mut read = Vec::new();
            tokio::join!(sending, to.read_to_end(&mut read)).1.unwrap();
            Ok(())
        };
        let error = within_limits(&meter, reading).await.unwrap_err();
        assert_eq!((error.render().as_str(), error.is_transient()), ("nothing moved for 1m", true));
        let took = start.elapsed();
        let least = 10 * slow + PAUSE_LIMIT;
        assert!(least <= took && took <= least + 2 * CHECK_INTERVAL, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_transfer_by_single_bytes_ends_too() {
        let (meter, start) = (Meter::default(), Instant::now());
        let dripping = async {
            loop {
                sleep(PAUSE_LIMIT.saturating_sub(2 * CHECK_INTERVAL)).await;
                meter.add(1);
            }
        };
        let error = within_limits::<()>(&meter, dripping).await.unwrap_err();
        assert_eq!((error.render().as_str(), error.is_transient()), ("not done after 1day", false));
        assert!(start.elapsed() < TRANSFER_LIMIT + PAUSE_LIMIT);
    }

    /// A machine that starts every verb, takes a little, and says nothing.
    struct Silent;

    impl Link for Silent {
        async fn agent(&self, _: &str, _: &[(&str, String)]) -> Result<RunningVerb> {
            let (ours, mut theirs) = duplex(1 << 10);
            let (output, speaking) = duplex(1 << 10);
            let exit = async move {
                let _speaking = speaking;
                theirs.read_exact(&mut [0; 100]).await.ok();
                pending::<Result<VerbExit>>().await
            };
            Ok(RunningVerb {
                input: Some(Box::pin(ours)),
                output: Some(Box::pin(output)),
                exit: Box::pin(exit),
            })
        }
    }

    /// Lets the clock run, which stands still as long as a thread is blocked.
    async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
        let start = Instant::now();
        let clock = async {
            loop {
                tokio::time::advance(CHECK_INTERVAL / 2).await;
                // The threads' steps take real time.
                std::thread::sleep(Duration::from_micros(100));
            }
        };
        tokio::select! {
            done = work => (done, start.elapsed()),
            never = clock => never,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_a_silent_machine_keeps_waiting_fail() {
        let folder = tempfile::tempdir().unwrap();
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(10 << 20).collect();
        std::fs::write(folder.path().join("large"), noise).unwrap();
        let large = BundleEntry::look(folder.path(), Path::new("large")).unwrap();
        let agent = Agent::new(Silent, "test");
        let (sent, took) = timed(agent.send(folder.path(), vec![large], "")).await;
        assert!(sent.unwrap_err().render().contains("nothing moved for 1m"));
        assert!(took < PAUSE_LIMIT + Duration::from_secs(30), "{took:?}");
        let (fetched, took) = timed(agent.fetch(&FileSelection::default(), folder.path(), "")).await;
        assert!(fetched.unwrap_err().render().contains("nothing moved for 10m"));
        assert!(took < FIRST_BYTE_LIMIT + Duration::from_secs(30), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_machine_keeps_no_verb_waiting_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let agent = Agent::new(Silent, "test");
        let request = trainspot_dvc::StoreRequest::default();
        let failed = |error: Error| error.render();
        let (asked, took) = timed(agent.ask(AgentCommand::Heartbeat)).await;
        assert!(failed(asked.unwrap_err().into()).contains("no answer within 15s") && took < PAUSE_LIMIT);
        for (verb, (done, took)) in [
            ("commit", timed(agent.send_commit(&Snapshot::default())).await),
            ("dvc", drop_value(timed(agent.store(&request)).await)),
            ("rescue", drop_value(timed(agent.rescue(&request, folder.path())).await)),
            (
                "pack-checkpoint",
                drop_value(timed(agent.fetch_checkpoint(1, &[], HeldFiles::default(), folder.path())).await),
            ),
        ] {
            let error = failed(done.unwrap_err());
            assert!(error.contains("nothing moved for "), "{verb}: {error}");
            assert!(took < FIRST_BYTE_LIMIT + Duration::from_secs(30), "{verb}: {took:?}");
        }
    }

    fn drop_value<T>((done, took): (Result<T>, Duration)) -> (Result<()>, Duration) {
        (done.map(drop), took)
    }
}
