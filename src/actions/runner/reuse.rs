//! `RUNNER_REUSE`: a runner that is there, in the place of a new one.

use crate::actions::job;
use crate::agent::protocol::Wish;
use crate::agent::runner_log::Phase;
use crate::bitbucket::{NewRunner, Runner, RunnerStatus};
use crate::compute::ec2::Cloud;
use crate::config::runner::Reuse;
use crate::error::{Result, chain};
use crate::link::Agent;
use tracing::info;

/// The name of a runner that is online, has at least the labels of `new`, and may be used.
///
/// Bitbucket does not tell whether a runner has a step. The machine does, if it is one of ours.
pub(super) async fn find(
    reuse: Reuse,
    there: &[Runner],
    new: &NewRunner,
    (cloud, public_ip_url): (&Cloud, &str),
) -> Result<Option<String>> {
    if reuse == Reuse::Never {
        return Ok(None);
    }
    let fits = |runner: &&Runner| {
        runner.status == RunnerStatus::Online
            && new.labels().iter().all(|label| runner.labels.contains(label))
    };
    for runner in there.iter().filter(fits) {
        if reuse == Reuse::Any || is_idle(&runner.name, cloud, public_ip_url).await? {
            return Ok(Some(runner.name.clone()));
        }
        info!("the runner {} is online, but not known to be idle", runner.name);
    }
    Ok(None)
}

async fn is_idle(name: &str, cloud: &Cloud, public_ip_url: &str) -> Result<bool> {
    let Some((region, id)) = cloud.machine_of_runner(name).await? else { return Ok(false) };
    let link = match cloud.visit(&region, &id, public_ip_url).await {
        Ok(link) => link,
        Err(error) => {
            info!("{}", chain(&error));
            return Ok(false);
        }
    };
    let status = Agent::new(link, &job::owner()).ask(Wish::Beat).await;
    // Another pipe may hold it, or it may be about to go.
    let runner = status.ok().and_then(|status| status.runner);
    Ok(runner.is_some_and(|runner| runner.phase == Phase::Idle && !runner.retiring))
}
