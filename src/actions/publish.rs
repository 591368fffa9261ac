//! `ACTION: publish`: commits outputs that an earlier step left in the clone.

use crate::config::Config;
use crate::publication::{self, Made, add, check_access, checkout, dvc_pointers, precheck, tell_ignored};
use std::time::Instant;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::progress::while_waiting;
use trainspot_dvc::store;
use trainspot_protocol::FileSelection;
use trainspot_transfer::find;

/// `ACTION: publish`: the outputs are in the clone already.
pub(super) async fn run(config: &Config) -> Result<String> {
    let start = Instant::now();
    let clone = checkout(config)?;
    let keeper = dvc_pointers::keeper(config, &clone, dvc_pointers::Where::Clone)?;
    precheck::outputs(config, &clone, None)?;
    let seen = check_access(config, &clone).await?;
    let mut matches = find(&config.clone_dir, &config.outputs)?;
    if !matches.unmatched.is_empty() {
        return Err(Error::new(format!(
            "nothing in the clone matches '{}' of OUTPUTS",
            matches.unmatched.join("', '")
        ))
        .kind(Kind::Publication)
        .hint("pass the files on from the step that makes them, with its artifacts"));
    }
    tell_ignored(config, &clone, &matches.files);
    if let Some(keeper) = keeper {
        let without = FileSelection { without: config.dvc.outputs.clone(), ..FileSelection::default() };
        matches.files.retain(|entry| !without.excludes(&entry.path.to_path()));
        let stored =
            while_waiting("sending to DVC's remote", store(&config.clone_dir, keeper.request())).await;
        let kept =
            stored.and_then(|outcome| keeper.accept(&outcome)).map_err(|error| match error.exit_kind() {
                Kind::Unexpected => error.kind(Kind::Publication),
                _ => error,
            })?;
        add(&mut matches.files, dvc_pointers::take(config, &kept)?);
    }
    let made = Made { outputs: matches.files, training: None, total: start.elapsed(), deadline: None };
    publication::publish(config, &clone, seen, made).await
}
