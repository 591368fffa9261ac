//! `DRY_RUN`: what would be rented, and each thing that a run needs tried beforehand.

use super::{charges, kept, precheck, publish, run_id, step, unless_stopped};
use crate::checks::{Check, verdict};
use crate::compute::ec2::{Ec2, Owner};
use crate::compute::{Order, RunId};
use crate::config::aws::Aws;
use crate::config::{Config, Train};
use crate::dvc::probe;
use crate::error::{Error, Result};
use crate::repo::Checkout;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The dry run of a training on AWS: the plan, then a line for each check.
///
/// # Errors
/// A check failed, or the order to stop came.
pub(super) async fn train(
    config: &Config,
    train: &Train,
    aws: &Aws,
    shutdown: &CancellationToken,
) -> Result<String> {
    let mut checks = match publish::checkout(config) {
        Ok(clone) => of_clone(config, train, &clone, shutdown).await?,
        Err(error) => vec![Check::of::<()>("the clone", Err(error))],
    };
    let deadline = step::deadline(config, train.max_runtime, train.step_max_time);
    let deadline = unless_stopped(shutdown, "looking at the step", async { Ok(deadline.await) }).await?;
    checks.push(Check::of("the step lasts long enough", deadline));
    let owner = Owner::from(&config.pipeline);
    let limits = Limits { orphan_grace: train.orphan_grace, max_runtime: train.max_runtime, waits: true };
    with_aws(config, checks, (owner, aws), limits, shutdown).await
}

/// What a dry run must know of the machine's time.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// `ORPHAN_GRACE`.
    pub(super) orphan_grace: Duration,
    /// `MAX_RUNTIME`.
    pub(super) max_runtime: Duration,
    /// Whether the pipe waits for what is done on the machine, which costs build minutes.
    pub(super) waits: bool,
}

/// Tells `checks`, which were made already, and those of what a run needs of AWS.
///
/// # Errors
/// A check failed, or the order to stop came.
pub(super) async fn with_aws(
    config: &Config,
    mut checks: Vec<Check>,
    (owner, aws): (Owner, &Aws),
    limits: Limits,
    shutdown: &CancellationToken,
) -> Result<String> {
    checks.extend(of_aws(config, (owner, aws), limits, shutdown).await?);
    let lines: Vec<_> = checks.iter().map(Check::text).collect();
    crate::log::text(&format!("\n{}", lines.join("\n")));
    verdict(&checks)
}

/// Whether the outputs can be committed and pushed, and what DVC is to keep can be sent.
async fn of_clone(
    config: &Config,
    train: &Train,
    clone: &Checkout,
    shutdown: &CancellationToken,
) -> Result<Vec<Check>> {
    let workspace = clone.workspace(&train.include);
    let outputs = workspace.and_then(|workspace| precheck::outputs(config, clone, Some(&workspace)));
    let mut checks = vec![Check::of("the outputs can be committed", outputs)];
    let access = unless_stopped(shutdown, "looking at the remote", async {
        Ok(Check::of("push to the repository", publish::check_access(config, clone).await))
    });
    checks.push(access.await?);
    let dvc = unless_stopped(shutdown, "trying DVC's remotes", async { Ok(of_dvc(config, clone).await) });
    checks.extend(dvc.await?);
    Ok(checks)
}

/// Whether DVC can keep what it is to keep, and each of its remotes takes an object.
async fn of_dvc(config: &Config, clone: &Checkout) -> Vec<Check> {
    let keeper = match kept::keeper(config, clone, kept::Where::Rented) {
        Ok(None) => return Vec::new(),
        Ok(Some(keeper)) => keeper,
        Err(error) => return vec![Check::of::<()>("what DVC is to keep", Err(error))],
    };
    let tried = probe(keeper.order()).await.into_iter();
    let remotes = tried.map(|(remote, sent)| Check::of(format!("send an object to {remote}"), sent));
    std::iter::once(Check::of("what DVC is to keep", Ok(()))).chain(remotes).collect()
}

async fn of_aws(
    config: &Config,
    (owner, aws): (Owner, &Aws),
    limits: Limits,
    shutdown: &CancellationToken,
) -> Result<Vec<Check>> {
    let ec2 = unless_stopped(shutdown, "looking for AWS credentials", async {
        Ok(Ec2::new(aws.clone(), owner).await)
    });
    let ec2 = match ec2.await? {
        Ok(ec2) => ec2,
        Err(error) => return Ok(vec![Check::of::<()>("credentials for AWS", Err(error))]),
    };
    let planned = unless_stopped(shutdown, "planning", async { Ok(ec2.plan().await) }).await?;
    match planned {
        Ok(plan) => {
            let text = plan.text(aws, limits.max_runtime);
            let beside = || plan.beside(aws, limits.max_runtime, charges::beside(config));
            crate::log::text(&if limits.waits { format!("{text}\n\n{}", beside()) } else { text });
        }
        Err(error) => return Ok(vec![Check::of::<()>("a plan of what to rent", Err(error))]),
    }
    // Not the step's own run: what that made may be in use.
    let run = RunId::new(&[run_id(config).as_str(), "dry run"]);
    let Limits { orphan_grace, max_runtime, .. } = limits;
    let order = Order { run, orphan_grace, max_runtime, avoid: Vec::new(), spot_now: false };
    match unless_stopped(shutdown, "trying what a run needs", ec2.rehearse(&order)).await {
        Ok(checks) => Ok(checks),
        Err(stopped) => Err(match ec2.forget_rehearsal(&order).await {
            Ok(()) => stopped,
            Err(error) => error.leftovers().fold(stopped, Error::leaves),
        }),
    }
}
