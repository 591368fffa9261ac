//! Whose turn it is: of several pipes that come for one run, one acts at a time.

use std::time::{Duration, Instant};
use tracing::{debug, info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::progress::in_words;
use trainspot_detached::RunFolder;
use trainspot_store::{Lease, LeaseState, Store, WriteCondition};

/// How long a pipe that says nothing is taken for alive.
const LEASE_DURATION: Duration = Duration::from_mins(1);
/// How often a pipe that acts says that it does.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(15);
/// How often a pipe that waits for another one tries to take its place.
const ACQUIRE_INTERVAL: Duration = Duration::from_secs(5);
/// How long after its last renewal a pipe still acts: a little less than others believe.
const BELIEF_DURATION: Duration = Duration::from_secs(45);

/// The store of a run, and a name for this pipe.
pub(super) struct Turns<'a> {
    pub(super) store: &'a Store,
    pub(super) folder: &'a RunFolder,
    /// This pipe as others are told of it, such as its pipeline's page.
    pub(super) holder: &'a str,
}

impl Turns<'_> {
    /// Does work while no other pipe does. None if another one acts: it was told, and will look again when it
    /// is done.
    ///
    /// A pipe that was killed is waited for, until its lease expires.
    pub(super) async fn take<T>(&self, work: impl AsyncFn() -> Result<T>) -> Result<Option<T>> {
        loop {
            let Some(lease) = self.acquire().await? else { return Ok(None) };
            self.store.delete(&self.folder.knock()?).await?;
            let done = self.work(lease, &work).await;
            let knocked = self.store.read(&self.folder.knock()?, 1 << 10).await;
            // What somebody came for may have happened after this pipe has looked.
            if done.is_err() || !matches!(knocked, Ok(Some(_))) {
                return done.map(Some);
            }
            info!("another pipeline came meanwhile; looking again");
        }
    }

    async fn work<T>(&self, mut lease: Lease, work: &impl AsyncFn() -> Result<T>) -> Result<T> {
        let done = tokio::select! {
            done = work() => done,
            lost = self.renew(&mut lease) => return Err(lost),
        };
        // It expires by itself: no reason to fail.
        if let Err(error) = lease.release(self.store).await {
            warn!("the run's lease was not given up: {}", chain(&error));
        }
        done
    }

    /// Renews the lease for as long as that is possible.
    async fn renew(&self, lease: &mut Lease) -> Error {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEWAL_INTERVAL).await;
            let began = Instant::now();
            let left = BELIEF_DURATION.saturating_sub(renewed.elapsed());
            let why = match tokio::time::timeout(left, lease.renew(self.store)).await {
                Ok(Ok(true)) => {
                    renewed = began;
                    continue;
                }
                Ok(Ok(false)) => Error::new("another pipeline holds its lease now"),
                Ok(Err(error)) if renewed.elapsed() < BELIEF_DURATION => {
                    debug!("the run's lease was not renewed: {}", chain(&error));
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => Error::new(format!("the store does not answer for {}", in_words(BELIEF_DURATION))),
            };
            return Error::new("this pipe acts on the run no more: it could not renew the run's lease")
                .source(why)
                .kind(Kind::Machine)
                .hint("whoever comes for the run next goes on from what the store has");
        }
    }

    async fn acquire(&self) -> Result<Option<Lease>> {
        let lease = self.folder.lease()?;
        let acquire = || Lease::acquire(self.store, &lease, self.holder, LEASE_DURATION);
        if let LeaseState::Acquired(lease) = acquire().await? {
            return Ok(Some(lease));
        }
        // Whoever acts looks for this after it has let go. Had it let go before, the lease is free now.
        let knock = self.holder.as_bytes().to_vec();
        self.store.write(&self.folder.knock()?, knock, WriteCondition::None).await?;
        let (by, expires_in) = match acquire().await? {
            LeaseState::Acquired(lease) => return Ok(Some(lease)),
            LeaseState::Held { by, expires_in } => (by, expires_in),
        };
        info!("{by} acts on the run; waiting up to {} to see whether it still lives", in_words(expires_in));
        // The store tells ages by the second.
        let give_up = Instant::now() + expires_in + Duration::from_secs(1);
        loop {
            let is_last = Instant::now() >= give_up;
            match acquire().await? {
                LeaseState::Acquired(lease) => return Ok(Some(lease)),
                LeaseState::Held { by, .. } if is_last => {
                    info!("{by} acts on the run, and looks again when it is done");
                    return Ok(None);
                }
                LeaseState::Held { .. } => {}
            }
            tokio::time::sleep(ACQUIRE_INTERVAL.min(give_up.saturating_duration_since(Instant::now()))).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use trainspot_store::{BucketAccess, StoreAddress};

    fn place() -> (tempfile::TempDir, Store, RunFolder) {
        let folder = tempfile::tempdir().unwrap();
        let address = StoreAddress::Folder(folder.path().to_owned());
        let store = Store::open(&address, &BucketAccess::default()).unwrap();
        (folder, store, RunFolder::new("acme", "iris", "0123456789abcdef").unwrap())
    }

    #[tokio::test]
    async fn one_acts_at_a_time_and_looks_again_for_the_other() {
        let (_place, store, folder) = place();
        let turns = |holder| Turns { store: &store, folder: &folder, holder };
        let (acting, looks) = (Cell::new(0), Cell::new(0));
        let work = async || {
            acting.set(acting.get() + 1);
            assert_eq!(acting.get(), 1, "two act at once");
            looks.set(looks.get() + 1);
            tokio::time::sleep(Duration::from_millis(50)).await;
            acting.set(acting.get() - 1);
            Ok(())
        };
        let (first, second) = (turns("a"), turns("b"));
        // The second waits for the first, whose lease is as long as a minute: a look at its knock is enough.
        let other = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let held = Lease::acquire(&store, &folder.lease().unwrap(), "b", LEASE_DURATION).await.unwrap();
            assert!(matches!(held, LeaseState::Held { by, .. } if by == "a"));
            store.write(&folder.knock().unwrap(), b"b".to_vec(), WriteCondition::None).await.unwrap();
        };
        let (done, ()) = tokio::join!(first.take(work), other);
        assert_eq!((done.unwrap(), looks.get()), (Some(()), 2));
        assert_eq!(second.take(work).await.unwrap(), Some(()));
        assert_eq!(looks.get(), 3);
    }

    #[tokio::test]
    async fn a_failure_lets_go_and_is_not_repeated() {
        let (_place, store, folder) = place();
        let turns = Turns { store: &store, folder: &folder, holder: "a" };
        let fail = async || {
            store.write(&folder.knock()?, b"b".to_vec(), WriteCondition::None).await?;
            Err::<(), _>(Error::new("no"))
        };
        assert_eq!(turns.take(fail).await.unwrap_err().render(), "no");
        assert_eq!(turns.take(async || Ok(1)).await.unwrap(), Some(1));
    }
}
