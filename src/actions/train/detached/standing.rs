//! How a run stands, for whoever asks.

use super::decision::{Need, need};
use super::progress::{Outcome, ProgressFile};
use super::request::RunRequest;
use super::words::{MachineWords, lines_of};
use super::{folder_of, no_such_run};
use crate::config::Config;
use serde::Serialize;
use std::time::Duration;
use trainspot_base::clock::stated_fraction;
use trainspot_base::error::Result;
use trainspot_base::log::one_line;
use trainspot_base::log::progress::in_words;
use trainspot_compute::RunId;
use trainspot_detached::{RunFolder, read_log_end};
use trainspot_store::Store;

/// How much of the training's log is read for its last lines.
const LOG_END_BYTES: usize = 16 << 10;

/// How a run stands.
#[derive(Debug, Serialize)]
pub(in crate::actions) struct Standing {
    pub(in crate::actions) run: String,
    /// One word or two.
    pub(in crate::actions) state: String,
    pub(in crate::actions) commit: String,
    /// When the run began, in seconds since 1970.
    since: u64,
    /// The last machine.
    pub(in crate::actions) machine: Option<String>,
    /// How long the training has run on all machines.
    pub(in crate::actions) trained: String,
    /// The newest checkpoint, and how old it is.
    pub(in crate::actions) checkpoint: Option<String>,
    pub(in crate::actions) restarts: u32,
    pub(in crate::actions) cost: Option<String>,
    /// What happens next.
    pub(in crate::actions) next: String,
    /// What the machine says went wrong.
    trouble: Option<String>,
    #[serde(skip)]
    pub(in crate::actions) last_lines: Vec<String>,
}

/// How the run `id` of this repository stands.
pub(in crate::actions) async fn standing(store: &Store, config: &Config, id: &RunId) -> Result<Standing> {
    let folder = folder_of(config, id)?;
    let request = RunRequest::read(store, &folder).await?.ok_or_else(|| no_such_run(id))?;
    let progress = ProgressFile::read(store, &folder).await?.progress;
    let last = progress.attempts.last();
    let words = match last {
        Some(attempt) => MachineWords::read(store, &folder.machine(&attempt.folder)?).await?,
        None => MachineWords::default(),
    };
    let need = need(&progress, &words);
    let (state, next) = in_state(&need);
    let state_of_machine = words.state.as_ref().filter(|_| progress.open_attempt().is_some());
    let on_this = state_of_machine.map_or(Duration::ZERO, |(state, _)| stated_fraction(state.seconds));
    let checkpoint = words.state.as_ref().and_then(|(state, age)| {
        let (number, taken) = (state.stored_checkpoint?, state.stored_seconds?);
        let age = stated_fraction(state.seconds - taken) + *age;
        Some(format!("{number} ({} old)", in_words(age)))
    });
    Ok(Standing {
        run: id.to_string(),
        state: state.to_owned(),
        next,
        commit: request.commit,
        since: request.since,
        machine: last.map(|attempt| attempt.description.clone()),
        trained: in_words(progress.trained() + on_this),
        checkpoint,
        restarts: progress.restarts(),
        cost: progress.cost().map(|cost| cost.in_words()),
        trouble: words.state.and_then(|(state, _)| state.trouble).map(|trouble| one_line(&trouble)),
        last_lines: last_lines(store, &folder, last.map(|attempt| attempt.folder.as_str())).await?,
    })
}

fn in_state(need: &Need<'_>) -> (&'static str, String) {
    let comes = "the next pipeline that comes for the run";
    match need {
        Need::Nothing(Outcome::Published(words)) => ("published", words.clone()),
        Need::Nothing(Outcome::Failed(why, _)) => ("failed", why.clone()),
        Need::Nothing(Outcome::Stopped(words)) => ("stopped", words.clone()),
        Need::Machine => ("due", format!("{comes} rents a machine")),
        Need::Look(_) => ("silent", format!("{comes} looks for its machine, and replaces it if it is gone")),
        Need::Patience(_) => ("training", "the training goes on".to_owned()),
        Need::Successor(..) => ("leaving", format!("the machine is taken away; {comes} replaces it")),
        Need::Continuation(_) => ("interrupted", format!("{comes} rents the next machine")),
        Need::Publication(_) => ("trained", format!("{comes} publishes the outputs")),
        Need::Report(_) => ("ended", format!("{comes} reports how the training failed")),
    }
}

async fn last_lines(store: &Store, folder: &RunFolder, machine: Option<&str>) -> Result<Vec<String>> {
    let Some(machine) = machine else { return Ok(Vec::new()) };
    let (log, _) = read_log_end(store, &folder.machine(machine)?, LOG_END_BYTES).await?;
    Ok(lines_of(&log, &mut |_| {}))
}
