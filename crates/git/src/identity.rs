//! Which commits on a branch are earlier results of the step that publishes, which it may therefore replace.

/// Names the step that publishes, as trailers of its commits.
///
/// A commit is an earlier result of this step if it names
/// - the same run: this step of this pipeline, in this clone, with these outputs; or
/// - the same step in another pipeline: these outputs, this report, this command.
///
/// Another step of the same pipeline is neither, however alike the two are: its result is not ours to
/// replace. Nor is any commit that came to the branch after the run began ([`super::Branches`]): whoever made
/// it ran at the same time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepIdentity {
    /// Differs between any two steps of a pipeline, and any two clones; stays when a step is run again.
    pub run: String,
    /// Stays from pipeline to pipeline.
    pub step: String,
    /// The pipeline's page, where there is a pipeline.
    pub pipeline: Option<String>,
}

const RUN_TRAILER: &str = "Trainspot-Run";
const STEP_TRAILER: &str = "Trainspot-Step";
const PIPELINE_TRAILER: &str = "Trainspot-Pipeline";

impl StepIdentity {
    /// The lines for a commit's message.
    #[must_use]
    pub fn trailers(&self) -> Vec<String> {
        let pipeline = self.pipeline.iter().map(|url| format!("{PIPELINE_TRAILER}: {url}"));
        pipeline
            .chain([format!("{RUN_TRAILER}: {}", self.run), format!("{STEP_TRAILER}: {}", self.step)])
            .collect()
    }

    /// Whether the commit with this message is a result of the same step.
    pub(super) fn is_result_of(&self, message: &str) -> bool {
        let value = |name: &str| {
            let mut lines = message.lines().rev();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
        };
        let same = |name, own: &str| !own.is_empty() && value(name) == Some(own);
        let other_pipeline = match (&self.pipeline, value(PIPELINE_TRAILER)) {
            (Some(own), Some(other)) => own != other,
            _ => false,
        };
        same(RUN_TRAILER, &self.run) || (same(STEP_TRAILER, &self.step) && other_pipeline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(run: &str, step: &str, pipeline: Option<&str>) -> StepIdentity {
        StepIdentity { run: run.into(), step: step.into(), pipeline: pipeline.map(str::to_owned) }
    }

    #[test]
    fn a_run_knows_its_own_commits_and_those_of_its_step_in_other_pipelines() {
        let own = identity("r1", "s1", Some("p7"));
        let is_result_of =
            |other: StepIdentity| own.is_result_of(&format!("Retrain\n\n{}\n", other.trailers().join("\n")));
        assert!(is_result_of(own.clone()));
        assert!(
            is_result_of(identity("r1", "s2", Some("p7"))),
            "the command may change from one try to the next"
        );
        assert!(is_result_of(identity("r2", "s1", Some("p6"))));
        assert!(!is_result_of(identity("r2", "s1", Some("p7"))), "a step of the same pipeline");
        assert!(!is_result_of(identity("r2", "s2", Some("p6"))), "another step of another pipeline");
        assert!(!is_result_of(identity("r2", "s1", None)));
        assert!(!own.is_result_of("by hand\n") && !StepIdentity::default().is_result_of("Trainspot-Run: \n"));
    }

    #[test]
    fn without_a_pipeline_only_the_run_counts() {
        let own = identity("r1", "s1", None);
        let is_result_of = |other: StepIdentity| own.is_result_of(&other.trailers().join("\n"));
        assert!(is_result_of(identity("r1", "s1", None)));
        assert!(!is_result_of(identity("r2", "s1", None)) && !is_result_of(identity("r2", "s1", Some("p7"))));
    }
}
