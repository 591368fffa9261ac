//! One file an action: the story of a run, told in calls to the rooms below.

mod charges;
#[cfg(feature = "aws")]
mod dry_run;
mod publish;
#[cfg(feature = "aws")]
mod runner;
mod status;
#[cfg(feature = "aws")]
mod sweep;
pub(crate) mod train;

use crate::config::Config;
use crate::config::variables::Action;
use tokio_util::sync::CancellationToken;
use trainspot_base::error::{Error, Kind, Result};

/// Does what `config` asks for, and returns the words for the last line. `shutdown` ends it early, in good
/// order.
pub(crate) async fn run(config: &Config, shutdown: &CancellationToken) -> Result<String> {
    match config.action {
        Action::Train if config.train.is_some() => train::run(config, shutdown).await,
        Action::Train => train::come_back(config, shutdown).await,
        #[cfg(feature = "aws")]
        Action::Runner => runner::run(config, shutdown).await,
        #[cfg(feature = "aws")]
        Action::Sweep => unless_stopped(shutdown, "sweeping", sweep::run(config)).await,
        #[cfg(not(feature = "aws"))]
        Action::Runner | Action::Sweep => Err(built_without_aws()),
        Action::Status => unless_stopped(shutdown, "looking at the store", status::run(config)).await,
        Action::Stop => train::stop(config, shutdown).await,
        Action::Publish => unless_stopped(shutdown, "publishing", publish::run(config)).await,
    }
}

/// The refusal of whatever needs AWS, by a build that has nothing of AWS in it.
#[cfg(not(feature = "aws"))]
fn built_without_aws() -> Error {
    Error::new("this build of trainspot cannot rent from AWS: its feature 'aws' was left out")
        .kind(Kind::Configuration)
        .hint("use the published image, or build with Cargo's default features")
}

/// Lets the order to stop end work that leaves nothing behind when it is dropped.
async fn unless_stopped<T>(
    shutdown: &CancellationToken,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = work => done,
        () = shutdown.cancelled() => Err(Error::new(format!("stopped while {what}")).kind(Kind::Stopped)),
    }
}
