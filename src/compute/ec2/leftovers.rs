//! What the runs of a repository left, by its tags.

use super::client::Cloud;
use super::failure::Failure;
use super::machines::{self, LEFT};
use super::tags::{PIPELINE, REPOSITORY, RUN, STEP, tagged, value};
use super::{Ec2, group, template};
use crate::error::Result;
use aws_sdk_ec2::types::Tag;
use futures_util::future::try_join_all;
use std::time::SystemTime;

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
    /// The run's name.
    pub run: String,
    /// The pipeline's number, if Pipelines ran it.
    pub pipeline: Option<String>,
    /// The step's id, without braces, if Pipelines ran it.
    pub step: Option<String>,
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
        Some(Self {
            what,
            id: id?.to_owned(),
            region: region.to_owned(),
            run: value(tags, RUN)?.to_owned(),
            pipeline: value(tags, PIPELINE).map(str::to_owned),
            step: value(tags, STEP).map(str::to_owned),
            since,
        })
    }
}

impl Ec2 {
    /// All that the runs of a repository (`workspace/slug`) have left in the regions of the configuration, machines first.
    ///
    /// # Errors
    /// One of the regions cannot be asked.
    pub async fn leftovers(&self, repository: &str) -> Result<Vec<Leftover>> {
        let regions = self.aws.regions.iter().map(|region| of_region(&self.cloud, region, repository));
        let mut left = try_join_all(regions).await?.concat();
        left.sort_by_key(|leftover| leftover.what);
        Ok(left)
    }
}

async fn of_region(cloud: &Cloud, region: &str, repository: &str) -> Result<Vec<Leftover>, Failure> {
    let tag = tagged(REPOSITORY, repository);
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
