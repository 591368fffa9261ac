//! What the runs of a repository left, by its tags.

use super::client::Cloud;
use super::ending::{self, Whose};
use super::failure::Failure;
use super::machines::{self, LEFT};
use super::tags::{FOLLOWED, NUMBER, PIPELINE, RUN, RUNNER, SCOPE, STEP, value, with_tag};
use super::{group, template};
use aws_sdk_ec2::types::Tag;
use futures_util::future::try_join_all;
use std::time::SystemTime;
use trainspot_base::error::Result;
use trainspot_compute::RunId;

/// What kind of thing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// An instance.
    Machine,
    /// A launch template.
    Template,
    /// A security group.
    Group,
}

/// Something that a run made and that is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// What it is.
    pub what: Left,
    /// Its id.
    pub id: String,
    /// Where it is.
    pub region: String,
    /// Whose it is.
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
    /// When it was made; EC2 does not say of a group.
    pub since: Option<SystemTime>,
}

impl Leftover {
    fn new(
        what: Left,
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
            run: RunId::from_name(value(tags, RUN)?),
            number: text(NUMBER),
            step: text(PIPELINE).zip(text(STEP)),
            runner: text(RUNNER),
            scope: text(SCOPE),
            followed: text(FOLLOWED).is_some(),
            since,
        })
    }
}

impl Cloud {
    /// All that the runs of the repository have left in the account's regions, machines first.
    ///
    /// # Errors
    /// One of the regions cannot be asked.
    pub async fn leftovers(&self) -> Result<Vec<Leftover>> {
        let find = async |region| self.found(region, of_region(self, region).await);
        let mut left = try_join_all(self.regions().map(find)).await?.concat();
        left.sort_by_key(|leftover| leftover.what);
        Ok(left)
    }

    /// Ends and removes all that is there of a run of the repository's.
    ///
    /// # Errors
    /// What could not be removed, each with the command that does.
    pub async fn delete_run_resources(&self, run: &RunId) -> Result<()> {
        ending::clean(self, run, Whose::Anyones).await
    }
}

async fn of_region(cloud: &Cloud, region: &str) -> Result<Vec<Leftover>, Failure> {
    let tag = with_tag(RUN);
    let (machines, templates, groups) = tokio::try_join!(
        machines::tagged_with(cloud, region, tag.clone(), &LEFT),
        template::tagged_with(cloud, region, tag.clone()),
        group::tagged_with(cloud, region, tag),
    )?;
    let machines = machines
        .iter()
        .map(|seen| Leftover::new(Left::Machine, Some(&seen.id), region, seen.tags(), seen.launched));
    let templates = templates.iter().map(|template| {
        let since = template.create_time().and_then(|time| SystemTime::try_from(*time).ok());
        Leftover::new(Left::Template, template.launch_template_id(), region, template.tags(), since)
    });
    let groups =
        groups.iter().map(|group| Leftover::new(Left::Group, group.group_id(), region, group.tags(), None));
    Ok(machines.chain(templates).chain(groups).flatten().collect())
}
