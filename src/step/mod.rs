//! The step that runs the pipe: how long Pipelines lets it live, and since when it does.

mod deadline;
mod declared;
mod run_identity;

pub(crate) use deadline::Deadline;
pub(crate) use declared::declared;
pub(crate) use run_identity::run_id;

use crate::bitbucket_access::full_client;
use crate::config::Config;
use declared::LONGEST_MAX_TIME_MINUTES;
use std::path::Path;
use std::time::{Duration, SystemTime};
use tracing::{debug, info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_base::log::progress::in_words;
use trainspot_bitbucket::Patience;

/// The step's image and container come before its clone; a tenth of a short step. Bitbucket's own word for
/// the start, where the token may ask for it, needs no such guess.
const TIME_BEFORE_CLONE: Duration = Duration::from_mins(1);
/// How long a machine takes to boot, for the max-time that would do.
const BOOT_ESTIMATE: Duration = Duration::from_mins(5);
const MAX_TIME_LIMIT: Duration = Duration::from_mins(LONGEST_MAX_TIME_MINUTES);
/// Files that git writes when it clones, and seldom after that.
const CLONE_FILES: [&str; 4] = ["description", "info/exclude", "config", "HEAD"];

/// What Bitbucket itself says of the step.
#[derive(Default)]
struct Known {
    name: Option<String>,
    started: Option<SystemTime>,
}

/// How long a step may take, and how much of that it has taken.
struct StepTime {
    max_time: Duration,
    elapsed: Duration,
    /// Whether nobody set the max-time, so that the one of Pipelines holds.
    is_default: bool,
}

/// When Pipelines kills this step, if that is known. Says where work of `max_runtime` cannot come to its end
/// before that. `set` is the step's max-time in the user's own words.
///
/// # Errors
/// The step is over too soon for anything to be done in it.
pub(crate) async fn deadline(
    config: &Config,
    max_runtime: Duration,
    set: Option<Duration>,
) -> Result<Option<Deadline>> {
    let in_pipelines = config.pipeline.step_uuid.is_some();
    if !in_pipelines && set.is_none() {
        return Ok(None);
    }
    let Some(StepTime { max_time, elapsed, is_default }) = step_time(config, set).await else {
        warn!(
            "the clone's bitbucket-pipelines.yml does not tell the max-time of this step, after which Pipelines kills it: 2 hours unless it is set; name it in STEP_MAX_TIME, and the run ends itself in good order before that"
        );
        return Ok(None);
    };
    let deadline = Deadline::new(max_time, elapsed);
    debug!("the step has taken {} of its max-time of {}", in_words(elapsed), in_words(max_time));
    if deadline.room().is_zero() {
        return Err(Error::new(format!(
            "the step's max-time of {} is nearly over: {} of it have passed",
            in_words(max_time),
            in_words(elapsed)
        ))
        .kind(Kind::Configuration)
        .hint("raise max-time in bitbucket-pipelines.yml, or do in another step what comes before; where the file is misread, set STEP_MAX_TIME"));
    }
    if max_runtime > deadline.room() {
        let said = too_long(deadline, max_time, is_default, max_runtime, elapsed);
        // Nothing can be done about the longest that there is.
        if max_time < MAX_TIME_LIMIT { warn!("{said}") } else { info!("{said}") }
    }
    Ok(Some(deadline))
}

/// When Pipelines kills this step, if that is known: for work that is begun however little time is left.
pub(crate) async fn end(config: &Config) -> Option<Deadline> {
    config.pipeline.step_uuid.as_ref()?;
    let StepTime { max_time, elapsed, .. } = step_time(config, None).await?;
    Some(Deadline::new(max_time, elapsed))
}

/// The time of this step: its max-time as the user `set` it, else as the clone's file has it. None if neither
/// tells.
async fn step_time(config: &Config, set: Option<Duration>) -> Option<StepTime> {
    let in_pipelines = config.pipeline.step_uuid.is_some();
    let known = if in_pipelines { known(config).await } else { Known::default() };
    let declared = declared(&config.clone_dir, &config.given, known.name.as_deref());
    let is_default = set.is_none() && declared.is_some_and(|declared| !declared.is_set);
    let max_time = set.or(declared.map(|declared| declared.max_time))?;
    // Elsewhere a clone is older than what is done in it.
    let elapsed = if in_pipelines { elapsed(config, &known, max_time) } else { Duration::ZERO };
    Some(StepTime { max_time, elapsed, is_default })
}

/// In words, what comes of a `max_runtime` that the step does not have.
fn too_long(
    deadline: Deadline,
    max_time: Duration,
    is_default: bool,
    max_runtime: Duration,
    elapsed: Duration,
) -> String {
    let default = if is_default { ", which is what Pipelines gives a step that sets none" } else { "" };
    let said = format!(
        "the step's max-time is {}{default}: {} of it are left for the work, so MAX_RUNTIME ({}) cannot be reached",
        in_words(max_time),
        in_words(deadline.room()),
        in_words(max_runtime)
    );
    if max_time >= MAX_TIME_LIMIT {
        return format!("{said}; Pipelines gives no step more");
    }
    let reserve = max_time.saturating_sub(elapsed).saturating_sub(deadline.room());
    let needed = (max_runtime + elapsed + BOOT_ESTIMATE + reserve).min(MAX_TIME_LIMIT).as_secs().div_ceil(60);
    format!("{said}; set 'max-time: {needed}' in bitbucket-pipelines.yml, or a shorter MAX_RUNTIME")
}

/// What a token may ask for: nothing depends on it.
async fn known(config: &Config) -> Known {
    let (Some(pipeline), Some(step)) = (&config.pipeline.pipeline_uuid, &config.pipeline.step_uuid) else {
        return Known::default();
    };
    let Ok(Some(client)) = full_client(config) else { return Known::default() };
    let bare = |id: &str| id.trim_matches(['{', '}']).to_owned();
    match client.with_patience(Patience::brief()).step(&bare(pipeline), &bare(step)).await {
        Ok(Some(step)) => {
            Known { name: Some(step.name).filter(|name| !name.is_empty()), started: step.started }
        }
        Ok(None) => Known::default(),
        Err(error) => {
            debug!("Bitbucket does not tell when this step began: {}", chain(&error));
            Known::default()
        }
    }
}

/// How much of its time the step has taken: by Bitbucket's word, or by the age of its clone.
fn elapsed(config: &Config, known: &Known, max_time: Duration) -> Duration {
    let since = |moment: SystemTime| moment.elapsed().ok().filter(|age| *age < max_time);
    if let Some(age) = known.started.and_then(since) {
        return age;
    }
    let clone = written(&config.clone_dir.join(".git")).filter_map(since).max().unwrap_or_default();
    clone + TIME_BEFORE_CLONE.min(max_time / 10)
}

/// When git wrote what it writes once.
fn written(git: &Path) -> impl Iterator<Item = SystemTime> {
    let files = CLONE_FILES.iter().map(|name| git.join(name)).chain([git.to_owned()]);
    files.filter_map(|file| file.symlink_metadata().ok()?.modified().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_max_time_that_would_do_is_named() {
        let minutes = Duration::from_mins;
        let said = |max_time, elapsed, max_runtime| {
            let deadline = Deadline::new(minutes(max_time), minutes(elapsed));
            too_long(deadline, minutes(max_time), max_time == 120, minutes(max_runtime), minutes(elapsed))
        };
        let text = said(120, 2, 180);
        assert!(text.contains("max-time is 2h, which is what Pipelines gives"), "{text}");
        assert!(
            text.contains("1h 54m of it are left for the work, so MAX_RUNTIME (3h) cannot be reached"),
            "{text}"
        );
        assert!(text.contains("set 'max-time: 191'"), "{text}");
        assert!(said(60, 0, 5000).contains("set 'max-time: 720'"));
        let text = said(720, 3, 720);
        assert!(text.ends_with("Pipelines gives no step more") && !text.contains("set '"), "{text}");
    }
}
