//! The tags that each resource gets by the call that makes it, and by which it is found again.

use aws_sdk_ec2::types::{
    Filter, LaunchTemplateTagSpecificationRequest, ResourceType, Tag, TagSpecification,
};
use trainspot_bitbucket::StepVariables;
use trainspot_compute::RunId;

/// The run's name.
pub(super) const RUN_TAG: &str = "trainspot:run";
/// The workspace and the repository.
pub(super) const REPOSITORY_TAG: &str = "trainspot:repository";
/// The pipeline's build number, as users know it.
pub(super) const NUMBER_TAG: &str = "trainspot:pipeline";
/// The pipeline's id in Bitbucket's API.
pub(super) const PIPELINE_TAG: &str = "trainspot:pipeline-id";
/// The step's id.
pub(super) const STEP_TAG: &str = "trainspot:step";
/// The machine's public host key, for a pipe that takes it over.
pub(super) const HOST_KEY_TAG: &str = "trainspot:host-key";
/// The login user of the machine, for a pipe that takes it over.
pub(super) const USER_TAG: &str = "trainspot:user";

/// The name of the runner that the machine is, at Bitbucket.
pub(super) const RUNNER_TAG: &str = "trainspot:runner";
/// The scope of that runner: the repository's or the workspace's.
pub(super) const SCOPE_TAG: &str = "trainspot:runner-scope";
/// Set if a pipe stays with the runner, to follow its steps.
pub(super) const FOLLOWED_TAG: &str = "trainspot:followed";

/// The repository, pipeline and step that a run belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    repository: String,
    name: String,
    number: Option<String>,
    pipeline: Option<String>,
    step: Option<String>,
    runner: Option<String>,
    scope: Option<String>,
    followed: bool,
}

impl Owner {
    /// This owner, of machines that are a runner with this name and scope at Bitbucket. `followed`: a pipe
    /// stays to follow its steps.
    #[must_use]
    pub fn with_runner(self, name: &str, scope: &str, followed: bool) -> Self {
        Self { runner: Some(name.to_owned()), scope: Some(scope.to_owned()), followed, ..self }
    }

    /// The pipeline's id, without braces.
    #[must_use]
    pub fn pipeline(&self) -> Option<&str> {
        self.pipeline.as_deref()
    }

    /// `workspace/slug`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The step's id, without braces.
    #[must_use]
    pub fn step(&self) -> Option<&str> {
        self.step.as_deref()
    }
}

impl From<&StepVariables> for Owner {
    fn from(pipeline: &StepVariables) -> Self {
        let workspace = pipeline.workspace.as_deref().unwrap_or("local");
        let slug = pipeline.repo_slug.as_deref().unwrap_or("local");
        // Not every service takes braces in a tag.
        let plain = |uuid: &Option<String>| Some(uuid.as_ref()?.trim_matches(['{', '}']).to_owned());
        Self {
            repository: format!("{workspace}/{slug}"),
            name: format!("trainspot {slug}"),
            number: pipeline.build_number.clone(),
            pipeline: plain(&pipeline.pipeline_uuid),
            step: plain(&pipeline.step_uuid),
            runner: None,
            scope: None,
            followed: false,
        }
    }
}

/// The tags of one run, as one value for all that is made.
#[derive(Clone, Debug)]
pub(super) struct Tags(Vec<(String, String)>);

impl Tags {
    /// The run's tags and the user's. A user's tag never replaces one of the pipe's, as those find the
    /// machines that must be ended.
    pub(super) fn new(owner: &Owner, run: &RunId, users: &[(String, String)]) -> Self {
        let mut tags = vec![
            (RUN_TAG.to_owned(), run.to_string()),
            (REPOSITORY_TAG.to_owned(), owner.repository.clone()),
            ("Name".to_owned(), owner.name.clone()),
        ];
        let followed = owner.followed.then(|| "true".to_owned());
        let known = [
            (NUMBER_TAG, &owner.number),
            (PIPELINE_TAG, &owner.pipeline),
            (STEP_TAG, &owner.step),
            (RUNNER_TAG, &owner.runner),
            (SCOPE_TAG, &owner.scope),
            (FOLLOWED_TAG, &followed),
        ];
        tags.extend(known.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value.clone()?))));
        let mut tags = Self(tags);
        for (key, value) in users {
            if key == "Name" || !tags.0.iter().any(|(ours, _)| ours == key) {
                tags.set(key, value);
            }
        }
        tags
    }

    /// These tags and one more, which replaces the tag with this key.
    #[must_use]
    pub(super) fn with(mut self, key: &str, value: &str) -> Self {
        self.set(key, value);
        self
    }

    fn set(&mut self, key: &str, value: &str) {
        self.0.retain(|(there, _)| there != key);
        self.0.push((key.to_owned(), value.to_owned()));
    }

    fn list(&self) -> Vec<Tag> {
        self.0.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
    }

    /// The tags for a call that makes a resource of this kind.
    pub(super) fn on(&self, kind: ResourceType) -> TagSpecification {
        TagSpecification::builder().resource_type(kind).set_tags(Some(self.list())).build()
    }

    /// The tags for a resource of this kind that a launch template makes.
    pub(super) fn by_template(&self, kind: ResourceType) -> LaunchTemplateTagSpecificationRequest {
        LaunchTemplateTagSpecificationRequest::builder()
            .resource_type(kind)
            .set_tags(Some(self.list()))
            .build()
    }
}

/// The filter for resources with this tag.
pub(super) fn tag_filter(key: &str, value: &str) -> Filter {
    filter(&format!("tag:{key}"), [value])
}

/// The filter for resources with a tag of this key, whatever its value.
pub(super) fn tag_key_filter(key: &str) -> Filter {
    filter("tag-key", [key])
}

/// The filter `name` for one of these values.
pub(super) fn filter<'a>(name: &str, values: impl IntoIterator<Item = &'a str>) -> Filter {
    let values = values.into_iter().map(str::to_owned).collect();
    Filter::builder().name(name).set_values(Some(values)).build()
}

/// The value of a tag.
pub(super) fn value<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == Some(key))?.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_stand_beside_the_users_but_for_the_name() {
        let pipeline = StepVariables {
            workspace: Some("acme".to_owned()),
            repo_slug: Some("forest".to_owned()),
            build_number: Some("7".to_owned()),
            pipeline_uuid: Some("{1-1}".to_owned()),
            step_uuid: Some("{2-2}".to_owned()),
            ..StepVariables::default()
        };
        let users = [("team", "ml"), ("Name", "mine"), (RUN_TAG, "another")];
        let users = users.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let run = RunId::new(&["a"]);
        let tags = Tags::new(&Owner::from(&pipeline), &run, &users).with(USER_TAG, "ubuntu").list();
        let expected = [
            (RUN_TAG, run.to_string()),
            (REPOSITORY_TAG, "acme/forest".to_owned()),
            (NUMBER_TAG, "7".to_owned()),
            (PIPELINE_TAG, "1-1".to_owned()),
            (STEP_TAG, "2-2".to_owned()),
            ("team", "ml".to_owned()),
            ("Name", "mine".to_owned()),
            (USER_TAG, "ubuntu".to_owned()),
        ];
        assert_eq!(tags.len(), expected.len());
        for (key, expected) in expected {
            assert_eq!(value(&tags, key), Some(expected.as_str()), "{key}");
        }
    }
}
