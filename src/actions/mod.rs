//! One file an action: the story of a run, told in calls to the rooms below.

mod announce;
mod machine;
mod publish;
mod reporting;
mod train;
mod watch;

use crate::config::Config;
use crate::config::variables::Action;
use crate::error::Result;
use tokio_util::sync::CancellationToken;

/// Does what `config` asks for, and returns the words for the last line. `shutdown` ends it early, in good order.
pub async fn run(config: &Config, shutdown: &CancellationToken) -> Result<String> {
    match config.action {
        Action::Train => train::run(config, shutdown).await,
        Action::Publish => publish::run(config).await,
    }
}
