//! `ACTION: sweep`: what runs of this repository left at AWS, listed, and removed where their step is over.

use crate::bitbucket::{Client, Credential};
use crate::compute::RunId;
use crate::compute::ec2::{Cloud, Left, Leftover, Owner};
use crate::config::{Config, Pipeline};
use crate::error::{Error, Kind, Result, chain};
use std::collections::BTreeMap;
use tracing::info;

/// Whether a run may still need what it made.
enum Life {
    Over,
    Alive,
    /// It is left alone: a machine ends itself, and what else there is costs nothing.
    Unknown(String),
}

pub(super) async fn run(config: &Config) -> Result<String> {
    let sweep = config.sweep.as_ref().ok_or_else(|| Error::new("there is nothing to sweep"))?;
    let owner = Owner::from(&config.pipeline);
    let cloud = Cloud::new(&sweep.account).await?;
    let left = cloud.leftovers(owner.repository()).await?;
    let bitbucket = bitbucket(config)?;
    let (mut over, mut alone) = (BTreeMap::<&str, (&RunId, usize)>::new(), 0);
    for (run, things) in by_run(&left) {
        let life = life(things[0].step.as_ref(), &owner, bitbucket.as_ref()).await;
        for thing in &things {
            info!("{}: {}", in_words(thing), life.in_words());
        }
        match life {
            Life::Over => drop(over.insert(run, (&things[0].run, things.len()))),
            Life::Alive | Life::Unknown(_) => alone += things.len(),
        }
    }
    let count: usize = over.values().map(|(_, count)| count).sum();
    if sweep.dry_run {
        return Ok(format!("DRY_RUN: {count} would be removed, {alone} left alone; nothing was"));
    }
    let mut errors = Vec::new();
    for (run, _) in over.values() {
        errors.extend(cloud.clean(run).await.err());
    }
    Error::all("not everything could be removed", errors).map_err(|error| error.kind(Kind::Machine))?;
    Ok(format!("{count} removed, {alone} left alone"))
}

fn by_run(left: &[Leftover]) -> BTreeMap<&str, Vec<&Leftover>> {
    let mut runs = BTreeMap::<&str, Vec<&Leftover>>::new();
    for thing in left {
        runs.entry(thing.run.as_str()).or_default().push(thing);
    }
    runs
}

/// The proxy of Pipelines does not open this part of the API.
fn bitbucket(config: &Config) -> Result<Option<Client>> {
    let Pipeline { workspace: Some(workspace), repo_slug: Some(slug), .. } = &config.pipeline else {
        return Ok(None);
    };
    match config.bitbucket.credential.clone() {
        None | Some(Credential::PipelinesProxy { .. }) => Ok(None),
        Some(credential) => Client::new(&config.bitbucket.api_url, workspace, slug, credential).map(Some),
    }
}

async fn life(step: Option<&(String, String)>, owner: &Owner, bitbucket: Option<&Client>) -> Life {
    let Some((pipeline, step)) = step else {
        return Life::Unknown("Pipelines did not run it".to_owned());
    };
    if owner.step() == Some(step.as_str()) {
        return Life::Alive;
    }
    let Some(bitbucket) = bitbucket else {
        return Life::Unknown("Bitbucket cannot be asked without BITBUCKET_ACCESS_TOKEN".to_owned());
    };
    match bitbucket.step_is_over(pipeline, step).await {
        Ok(Some(true)) => Life::Over,
        Ok(Some(false)) => Life::Alive,
        Ok(None) => Life::Unknown(
            "Bitbucket does not know its step, or does not show it to this credential".to_owned(),
        ),
        Err(error) => Life::Unknown(chain(&error)),
    }
}

impl Life {
    fn in_words(&self) -> String {
        match self {
            Self::Over => "its step is over".to_owned(),
            Self::Alive => "left alone, its step is running".to_owned(),
            Self::Unknown(why) => format!("left alone, as it is not known whether its run is over: {why}"),
        }
    }
}

fn in_words(thing: &Leftover) -> String {
    let what = match thing.what {
        Left::Machine => "machine",
        Left::Template => "launch template",
        Left::Group => "security group",
    };
    let number = thing.number.as_ref().map_or_else(String::new, |number| format!(" of pipeline #{number}"));
    format!("{what} {} in {}{number}", thing.id, thing.region)
}
