//! `DRY_RUN`: shows what would be rented, and tries beforehand each thing that a run needs.

use super::{charges, unless_stopped};
use crate::config::{Config, Train};
use crate::publication::{OutputLocation, Publisher};
use crate::step::{self, run_id};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use trainspot_base::error::{Error, Result};
use trainspot_compute::aws::AwsSettings;
use trainspot_compute::checks::{Check, verdict};
use trainspot_compute::{LaunchRequest, RunId};
use trainspot_dvc::probe;
use trainspot_ec2::{Ec2, Owner};

/// Makes the dry run of a training on AWS: shows the plan, then a line for each check.
///
/// # Errors
/// A check failed, or the order to stop came.
pub(super) async fn train(
    config: &Config,
    train: &Train,
    aws: &AwsSettings,
    shutdown: &CancellationToken,
) -> Result<String> {
    let mut checks = match Publisher::open(config) {
        Ok(publisher) => of_clone(train, &publisher, shutdown).await?,
        Err(error) => vec![Check::from_result::<()>("open the clone", Err(error))],
    };
    let deadline = step::deadline(config, train.max_runtime, train.step_max_time);
    let deadline = unless_stopped(shutdown, "looking at the step", async { Ok(deadline.await) }).await?;
    checks.push(Check::from_result("the step lasts long enough", deadline));
    let owner = Owner::from(&config.pipeline);
    let limits =
        DryRunLimits { orphan_grace: train.orphan_grace, max_runtime: train.max_runtime, waits: true };
    with_aws(config, checks, (owner, aws), limits, shutdown).await
}

/// The limits of a run's time that matter to its dry run.
#[derive(Clone, Copy)]
pub(super) struct DryRunLimits {
    /// `ORPHAN_GRACE`.
    pub(super) orphan_grace: Duration,
    /// `MAX_RUNTIME`.
    pub(super) max_runtime: Duration,
    /// Whether the pipe stays until the work on the machine is done: the step's build minutes are counted
    /// meanwhile.
    pub(super) waits: bool,
}

/// Makes the checks of what a run needs of AWS, and shows them after `checks`, which were made before.
///
/// # Errors
/// A check failed, or the order to stop came.
pub(super) async fn with_aws(
    config: &Config,
    mut checks: Vec<Check>,
    (owner, aws): (Owner, &AwsSettings),
    limits: DryRunLimits,
    shutdown: &CancellationToken,
) -> Result<String> {
    checks.extend(of_aws(config, (owner, aws), limits, shutdown).await?);
    let lines: Vec<_> = checks.iter().map(Check::text).collect();
    trainspot_base::log::text(&format!("\n{}", lines.join("\n")));
    verdict(&checks)
}

/// Checks whether the outputs can be committed and pushed, and whether DVC's remotes take what DVC is to
/// keep.
async fn of_clone(
    train: &Train,
    publisher: &Publisher<'_>,
    shutdown: &CancellationToken,
) -> Result<Vec<Check>> {
    let workspace = publisher.checkout.workspace(&train.include);
    let outputs = workspace.and_then(|workspace| publisher.check_outputs(Some(&workspace)));
    let mut checks = vec![Check::from_result("the outputs can be committed", outputs)];
    let access = unless_stopped(shutdown, "looking at the remote", async {
        Ok(Check::from_result("push to the repository", publisher.check_access().await))
    });
    checks.push(access.await?);
    let dvc = unless_stopped(shutdown, "trying DVC's remotes", async { Ok(of_dvc(publisher).await) });
    checks.extend(dvc.await?);
    Ok(checks)
}

/// Checks whether the outputs of `DVC_OUTPUTS` can be kept, and whether each of DVC's remotes takes an
/// object. No checks where nothing is for DVC.
async fn of_dvc(publisher: &Publisher<'_>) -> Vec<Check> {
    let store_plan = match publisher.dvc_store_plan(OutputLocation::Rented) {
        Ok(None) => return Vec::new(),
        Ok(Some(store_plan)) => store_plan,
        Err(error) => return vec![Check::from_result::<()>("DVC can keep its outputs", Err(error))],
    };
    let tried = probe(store_plan.request()).await.into_iter();
    let remotes = tried.map(|(remote, sent)| Check::from_result(format!("send an object to {remote}"), sent));
    std::iter::once(Check::from_result("DVC can keep its outputs", Ok(()))).chain(remotes).collect()
}

/// Whether AWS gives what a run needs: credentials, a plan of what to rent, and each call that is tried.
async fn of_aws(
    config: &Config,
    (owner, aws): (Owner, &AwsSettings),
    limits: DryRunLimits,
    shutdown: &CancellationToken,
) -> Result<Vec<Check>> {
    let ec2 = unless_stopped(shutdown, "looking for AWS credentials", async {
        Ok(Ec2::new(aws.clone(), owner).await)
    });
    let (ec2, credentials) = match ec2.await? {
        Ok(ec2) => (ec2, Check::from_result("credentials for AWS", Ok(()))),
        Err(error) => return Ok(vec![Check::from_result::<()>("credentials for AWS", Err(error))]),
    };
    let planned = unless_stopped(shutdown, "planning", async { Ok(ec2.plan().await) }).await?;
    let plan = match planned {
        Ok(plan) => {
            let text = plan.text(aws, limits.max_runtime);
            let beside = || plan.beside(aws, limits.max_runtime, charges::beside(config));
            trainspot_base::log::text(&if limits.waits { format!("{text}\n\n{}", beside()) } else { text });
            Check::from_result("a plan of what to rent", Ok(()))
        }
        Err(error) => {
            return Ok(vec![credentials, Check::from_result::<()>("a plan of what to rent", Err(error))]);
        }
    };
    let tried = try_calls(config, &ec2, limits, shutdown).await?;
    Ok([credentials, plan].into_iter().chain(tried).collect())
}

/// Tries the calls of a run. What that makes at AWS is removed, also when the order to stop comes.
async fn try_calls(
    config: &Config,
    ec2: &Ec2,
    limits: DryRunLimits,
    shutdown: &CancellationToken,
) -> Result<Vec<Check>> {
    // A run of its own: what the step's run made may be in use.
    let run = RunId::new(&[run_id(config).as_str(), "dry run"]);
    let DryRunLimits { orphan_grace, max_runtime, .. } = limits;
    let request = LaunchRequest { run, orphan_grace, max_runtime, avoid: Vec::new(), spot_now: false };
    match unless_stopped(shutdown, "trying what a run needs", ec2.rehearse(&request)).await {
        Ok(checks) => Ok(checks),
        Err(stopped) => Err(match ec2.forget_rehearsal(&request).await {
            Ok(()) => stopped,
            Err(error) => error.leftovers().fold(stopped, Error::leaves),
        }),
    }
}
