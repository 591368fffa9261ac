//! The resources that the runs of a repository left, found by their tags.

use super::client::AwsClients;
use super::ending::{self, CleanupScope};
use super::failure::AwsError;
use super::machines::{self, LEFTOVER_STATES};
use super::tags::{
    FOLLOWED_TAG, NUMBER_TAG, PIPELINE_TAG, RUN_TAG, RUNNER_TAG, SCOPE_TAG, STEP_TAG, tag_key_filter, value,
};
use super::{group, template};
use aws_sdk_ec2::types::Tag;
use futures_util::future::try_join_all;
use std::time::SystemTime;
use trainspot_base::error::Result;
use trainspot_compute::RunId;

/// The kind of a leftover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftoverKind {
    /// An instance.
    Machine,
    /// A launch template.
    Template,
    /// A security group.
    Group,
}

/// A resource of a run that still exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The kind of resource.
    pub what: LeftoverKind,
    /// Its id.
    pub id: String,
    /// The resource's region.
    pub region: String,
    /// The run that made the resource.
    pub run: RunId,
    /// The pipeline's number, if Pipelines ran it.
    pub number: Option<String>,
    /// The ids of the pipeline and its step, without braces, if Pipelines ran it.
    pub step: Option<(String, String)>,
    /// The name of the runner that its run was for.
    pub runner: Option<String>,
    /// The scope of that runner, as it was given.
    pub scope: Option<String>,
    /// Whether a pipe was to stay with that runner.
    pub followed: bool,
    /// When the resource was made; none for a group, of which EC2 does not tell.
    pub since: Option<SystemTime>,
}

impl Leftover {
    fn new(
        what: LeftoverKind,
        id: Option<&str>,
        region: &str,
        tags: &[Tag],
        since: Option<SystemTime>,
    ) -> Option<Self> {
        let text = |key| value(tags, key).map(str::to_owned);
        Some(Self {
            what,
            id: id?.to_owned(),
            region: region.to_owned(),
            run: RunId::from_name(value(tags, RUN_TAG)?),
            number: text(NUMBER_TAG),
            step: text(PIPELINE_TAG).zip(text(STEP_TAG)),
            runner: text(RUNNER_TAG),
            scope: text(SCOPE_TAG),
            followed: text(FOLLOWED_TAG).is_some(),
            since,
        })
    }
}

impl AwsClients {
    /// All resources of the repository's runs in the account's regions, machines first.
    ///
    /// # Errors
    /// One of the regions cannot be asked.
    pub async fn leftovers(&self) -> Result<Vec<Leftover>> {
        let find = async |region| self.empty_if_inaccessible(region, of_region(self, region).await);
        let mut left = try_join_all(self.regions().map(find)).await?.concat();
        left.sort_by_key(|leftover| leftover.what);
        Ok(left)
    }

    /// Ends the machines and removes the resources of a run of the repository.
    ///
    /// # Errors
    /// What could not be removed, each with the command that does.
    pub async fn delete_run_resources(&self, run: &RunId) -> Result<()> {
        ending::delete_run_resources(self, run, CleanupScope::WholeRun).await
    }
}

async fn of_region(clients: &AwsClients, region: &str) -> Result<Vec<Leftover>, AwsError> {
    let tag = tag_key_filter(RUN_TAG);
    let (machines, templates, groups) = tokio::try_join!(
        machines::find_by_tag(clients, region, tag.clone(), &LEFTOVER_STATES),
        template::find_by_tag(clients, region, tag.clone()),
        group::find_by_tag(clients, region, tag),
    )?;
    let machines = machines.iter().map(|instance| {
        Leftover::new(LeftoverKind::Machine, Some(&instance.id), region, instance.tags(), instance.launched)
    });
    let templates = templates.iter().map(|template| {
        let since = template.create_time().and_then(|time| SystemTime::try_from(*time).ok());
        Leftover::new(LeftoverKind::Template, template.launch_template_id(), region, template.tags(), since)
    });
    let groups = groups
        .iter()
        .map(|group| Leftover::new(LeftoverKind::Group, group.group_id(), region, group.tags(), None));
    Ok(machines.chain(templates).chain(groups).flatten().collect())
}
