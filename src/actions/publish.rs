//! `ACTION: publish`: commits outputs that an earlier step left in the clone.

use crate::config::Config;
use crate::publication::{OutputLocation, Publisher, RunOutcome, add_outputs, before_the_step_ends};
use crate::step::{self, Deadline};
use std::time::Instant;
use trainspot_base::error::{Error, Kind, Result};
use trainspot_base::log::progress::while_waiting;
use trainspot_dvc::store;
use trainspot_protocol::FileSelection;
use trainspot_transfer::find;

/// `ACTION: publish`: the outputs are in the clone already.
pub(super) async fn run(config: &Config) -> Result<String> {
    let start = Instant::now();
    let deadline = step::end(config).await;
    before_the_step_ends(deadline, Box::pin(publish(config, start, deadline))).await
}

async fn publish(config: &Config, start: Instant, deadline: Option<Deadline>) -> Result<String> {
    let publisher = Publisher::open(config)?;
    let store_plan = publisher.dvc_store_plan(OutputLocation::Clone)?;
    publisher.check_outputs(None)?;
    let seen = publisher.check_access().await?;
    let mut matches = find(&config.clone_dir, &config.outputs)?;
    if !matches.unmatched.is_empty() {
        return Err(Error::new(format!(
            "nothing in the clone matches '{}' of OUTPUTS",
            matches.unmatched.join("', '")
        ))
        .kind(Kind::Publication)
        .hint("pass the files on from the step that makes them, with its artifacts"));
    }
    publisher.report_ignored(&matches.files);
    if let Some(store_plan) = store_plan {
        let without = FileSelection { without: config.dvc.outputs.clone(), ..FileSelection::default() };
        matches.files.retain(|entry| !without.excludes(&entry.path.to_path()));
        let stored =
            while_waiting("sending to DVC's remote", store(&config.clone_dir, store_plan.request())).await;
        let kept = stored
            .and_then(|outcome| store_plan.accept(&outcome))
            .map_err(|error| error.or_kind(Kind::Publication))?;
        add_outputs(&mut matches.files, publisher.write_pointers(&kept)?);
    }
    let outcome = RunOutcome { outputs: matches.files, training: None, total: start.elapsed(), deadline };
    publisher.publish(seen, outcome).await
}
