//! What the run of this step is known by.

use crate::config::Config;
use trainspot_compute::RunId;

/// The run's id: the one of the detached run that this step comes back for; else made of repository, pipeline
/// and step; outside Pipelines, of the host and the clone's folder.
pub(crate) fn run_id(config: &Config) -> RunId {
    if let Some(run) = &config.run {
        return run.clone();
    }
    let pipeline = &config.pipeline;
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let folder = std::fs::canonicalize(&config.clone_dir).unwrap_or_default();
    let parts = [
        part(&pipeline.workspace),
        part(&pipeline.repo_slug),
        part(&pipeline.pipeline_uuid),
        part(&pipeline.step_uuid),
        if pipeline.step_uuid.is_some() { String::new() } else { format!("{host} {}", folder.display()) },
    ];
    RunId::new(&parts.each_ref().map(String::as_str))
}
