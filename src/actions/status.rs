//! `ACTION: status`: how the repository's detached runs stand.

use super::train::{Standing, standing};
use crate::config::Config;
use tracing::info;
use trainspot_base::error::{Context as _, Error, Result};
use trainspot_base::log::{self, count};
use trainspot_compute::RunId;
use trainspot_detached::{check_version, runs_of};
use trainspot_store::Store;

/// The columns of the table, by their headings.
const HEADINGS: [&str; 8] =
    ["run", "state", "commit", "machine", "trained", "checkpoint", "restarts", "cost"];
/// The digits of a commit that are shown.
const COMMIT_DIGITS: usize = 12;

pub(super) async fn run(config: &Config) -> Result<String> {
    let settings = config.store.as_ref().ok_or_else(|| Error::new("there is no store to look at"))?;
    let store = Store::open(&settings.address, &settings.access)?;
    check_version(&store).await?;
    let name = |part: &Option<String>| part.clone().unwrap_or_default();
    let (workspace, repository) = (name(&config.pipeline.workspace), name(&config.pipeline.repo_slug));
    let runs = if let Some(run) = &config.run {
        vec![run.clone()]
    } else {
        let names = runs_of(&store, &workspace, &repository).await?;
        names.iter().filter_map(|name| RunId::parse(name)).collect()
    };
    let mut standings = Vec::new();
    for run in &runs {
        standings.push(standing(&store, config, run).await?);
    }
    show(&standings)?;
    if let (Some(_), [one]) = (&config.run, standings.as_slice()) {
        info!("{}", one.next);
        one.last_lines.iter().for_each(|line| log::training(line));
    }
    Ok(format!("{} in the store", count(standings.len(), "run")))
}

/// Shows a table for people, and then a line of JSON a run for programs.
fn show(standings: &[Standing]) -> Result<()> {
    let rows: Vec<[String; 8]> = standings.iter().map(row).collect();
    let widths: Vec<usize> = HEADINGS
        .iter()
        .enumerate()
        .map(|(column, heading)| {
            let longest = rows.iter().map(|row| row[column].chars().count()).max();
            longest.unwrap_or_default().max(heading.chars().count())
        })
        .collect();
    for row in std::iter::once(&HEADINGS.map(str::to_owned)).chain(&rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        log::text(cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    for standing in standings {
        log::text(&serde_json::to_string(standing).context("cannot write a run's state as JSON")?);
    }
    Ok(())
}

fn row(standing: &Standing) -> [String; 8] {
    let none = || "-".to_owned();
    [
        standing.run.clone(),
        standing.state.clone(),
        standing.commit.chars().take(COMMIT_DIGITS).collect(),
        standing.machine.clone().unwrap_or_else(none),
        standing.trained.clone(),
        standing.checkpoint.clone().unwrap_or_else(none),
        standing.restarts.to_string(),
        standing.cost.clone().unwrap_or_else(none),
    ]
}
