//! Runners in Bitbucket's lists whose machine is gone.

use super::{Count, Sweep, run_of};
use crate::bitbucket::{Client, Level, Runner, RunnerStatus};
use crate::error::{Error, Result, chain};
use std::collections::BTreeMap;
use std::time::Duration;
use tracing::info;

/// A runner that was registered this long ago, and never seen, has no machine that is still coming up.
const NEVER_SEEN: Duration = Duration::from_hours(1);

/// A runner of ours, and where it is listed.
pub(super) struct Registered {
    pub(super) level: Level,
    pub(super) runner: Runner,
}

/// The runners that runs of this repository registered.
pub(super) async fn list(bitbucket: Option<&Client>, slug: &str) -> Result<Vec<Registered>> {
    let mut ours = Vec::new();
    let Some(bitbucket) = bitbucket else { return Ok(ours) };
    for level in [Level::Repository, Level::Workspace] {
        let listed = match bitbucket.runners_of(level).await {
            Ok(listed) => listed,
            // Many tokens are of the repository alone, or not for runners: then none was registered by them.
            Err(error) => {
                info!("runners are not looked at: {}", chain(&error));
                continue;
            }
        };
        let of_repository = listed.into_iter().filter(|runner| run_of(slug, &runner.name).is_some());
        ours.extend(of_repository.map(|runner| Registered { level, runner }));
    }
    Ok(ours)
}

impl Sweep<'_> {
    /// Deletes the runners that nobody serves. `runs` are those that had something at AWS, and whether it was ended.
    pub(super) async fn sweep_runners(&self, runs: &BTreeMap<&str, bool>, count: &mut Count) -> Vec<Error> {
        let mut errors = Vec::new();
        for Registered { level, runner } in &self.runners {
            let run = runs.iter().find(|(run, _)| runner.name.ends_with(**run));
            let is_gone = run.map_or_else(|| is_gone(runner), |(_, ended)| *ended);
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

/// Whether nobody serves it, if its run has nothing at AWS.
fn is_gone(runner: &Runner) -> bool {
    match runner.status {
        RunnerStatus::Online => false,
        RunnerStatus::Unregistered => {
            runner.since.and_then(|since| since.elapsed().ok()).is_some_and(|age| age >= NEVER_SEEN)
        }
        _ => true,
    }
}
