//! Runners in Bitbucket's lists whose machine is gone.

use super::{Count, Sweep, run_of};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::info;
use trainspot_base::error::{Error, chain};
use trainspot_bitbucket::{Client, RegistrationStatus, RunnerRegistration, Scope};

/// A runner that was registered this long ago, and never seen, has no machine that is still coming up.
const NEVER_SEEN: Duration = Duration::from_hours(1);

/// A runner that takes no steps any more has not run its last one for so long.
const UNUSED_RUNNER_AGE: Duration = Duration::from_hours(48);

/// A runner of ours, and where it is listed.
pub(super) struct Registered {
    pub(super) level: Scope,
    pub(super) runner: RunnerRegistration,
}

/// What Bitbucket tells of runners.
#[derive(Default)]
pub(super) struct Runners {
    /// Those that runs of this repository registered.
    pub(super) ours: Vec<Registered>,
    /// The lists that could be read.
    read: Vec<Scope>,
}

impl Runners {
    /// As far as the credential may see them.
    pub(super) async fn list(bitbucket: Option<&Client>, slug: &str) -> Self {
        let mut runners = Self::default();
        let Some(bitbucket) = bitbucket else { return runners };
        for level in Scope::ALL {
            match bitbucket.runners_of(level).await {
                Ok(listed) => {
                    let ours = listed.into_iter().filter(|runner| run_of(slug, &runner.name).is_some());
                    runners.ours.extend(ours.map(|runner| Registered { level, runner }));
                    runners.read.push(level);
                }
                // Many tokens are of the repository alone, or not for runners.
                Err(error) => {
                    info!("the runners of the {} are not looked at: {}", level.name(), chain(&error));
                }
            }
        }
        runners
    }

    /// Whether a runner of this scope that is not among them does not exist.
    pub(super) fn are_all(&self, scope: Option<&str>) -> bool {
        self.read.iter().any(|level| Some(level.name()) == scope)
    }
}

impl Sweep<'_> {
    /// Deletes the runners that nobody serves. `runs` are those that had something at AWS, and what became of
    /// it.
    pub(super) async fn sweep_runners(&self, runs: &BTreeMap<&str, Fate>, count: &mut Count) -> Vec<Error> {
        let mut errors = Vec::new();
        for Registered { level, runner } in &self.runners.ours {
            let fate = runs.iter().find(|(run, _)| runner.name.ends_with(**run)).map(|(_, fate)| *fate);
            let is_gone = match fate {
                Some(Fate::Kept) => false,
                Some(Fate::Ended) => true,
                Some(Fate::Gone) | None => is_gone(runner),
            };
            let how = if is_gone { "its machine is gone" } else { "left alone" };
            info!("runner {} ({:?}): {how}", runner.name, runner.status);
            count.add(is_gone, 1);
            if let (true, false, Some(bitbucket)) = (is_gone, self.dry_run, self.bitbucket) {
                errors.extend(bitbucket.delete_runner(*level, &runner.uuid).await.err());
            }
        }
        errors
    }
}

/// What became of a run's things at AWS.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// They are left alone.
    Kept,
    /// Its machine was ended.
    Ended,
    /// It had no machine in these regions.
    Gone,
}

/// Whether nobody serves it, as far as Bitbucket and its age tell: its machine may be in a region that is not
/// looked at.
fn is_gone(runner: &RunnerRegistration) -> bool {
    let is_older_than =
        |age| runner.since.and_then(|since| since.elapsed().ok()).is_some_and(|since| since >= age);
    match runner.status {
        RegistrationStatus::Offline => true,
        RegistrationStatus::Online => false,
        RegistrationStatus::Unregistered => is_older_than(NEVER_SEEN),
        _ => is_older_than(UNUSED_RUNNER_AGE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn runner(status: RegistrationStatus, minutes_old: Option<u64>) -> RunnerRegistration {
        let since = minutes_old.map(|minutes| SystemTime::now() - Duration::from_mins(minutes));
        RunnerRegistration {
            uuid: "{1}".to_owned(),
            name: "trainspot-1".to_owned(),
            labels: Vec::new(),
            status,
            since,
        }
    }

    #[test]
    fn a_runner_whose_machine_may_still_be_coming_up_is_left_alone() {
        use RegistrationStatus::{Disabled, Offline, Online, Unregistered};
        for (status, minutes_old, expected) in [
            (Unregistered, Some(0), false),
            (Unregistered, Some(59), false),
            (Unregistered, Some(61), true),
            // Its age is not known: the sweep after the next will tell.
            (Unregistered, None, false),
            (Offline, Some(0), true),
            (Online, Some(10_000), false),
            (Disabled, Some(60), false),
            (Disabled, Some(49 * 60), true),
        ] {
            assert_eq!(
                is_gone(&runner(status.clone(), minutes_old)),
                expected,
                "{status:?}, {minutes_old:?} min"
            );
        }
    }
}
