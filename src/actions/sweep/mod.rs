//! `ACTION: sweep`: what runs of this repository left at AWS and in Bitbucket's lists, removed where they are
//! over.

mod decision;
mod runners;

use super::runner::run_of;
use crate::bitbucket_access::full_client;
use crate::config::Config;
use decision::Life;
use runners::{Fate, Runners};
use std::collections::BTreeMap;
use tracing::{info, warn};
use trainspot_base::error::{Error, Kind, Result, chain};
use trainspot_bitbucket::Client;
use trainspot_ec2::{AwsClients, Leftover, LeftoverKind, Owner};

/// What there is, and who can be asked about it.
struct Sweep<'a> {
    cloud: &'a AwsClients,
    owner: &'a Owner,
    /// None without a credential: the proxy of Pipelines does not open this part of the API.
    bitbucket: Option<&'a Client>,
    runners: Runners,
    public_ip_url: &'a str,
    dry_run: bool,
}

/// How many things are removed and left alone.
#[derive(Default)]
struct Count {
    removed: usize,
    alone: usize,
}

impl Count {
    fn add(&mut self, is_over: bool, things: usize) {
        *(if is_over { &mut self.removed } else { &mut self.alone }) += things;
    }
}

pub(super) async fn run(config: &Config) -> Result<String> {
    let settings = config.sweep.as_ref().ok_or_else(|| Error::new("there is nothing to sweep"))?;
    let owner = Owner::from(&config.pipeline);
    let cloud = AwsClients::new(&settings.account, owner.repository()).await?;
    let bitbucket = full_client(config)?;
    let slug = config.pipeline.repo_slug.as_deref().unwrap_or_default();
    let runners = Runners::list(bitbucket.as_ref(), slug);
    let (left, runners) = tokio::join!(cloud.leftovers(), runners);
    let left = left?;
    let sweep = Sweep {
        cloud: &cloud,
        owner: &owner,
        bitbucket: bitbucket.as_ref(),
        runners,
        public_ip_url: &settings.public_ip_url,
        dry_run: settings.dry_run,
    };
    sweep.run(&left).await
}

impl Sweep<'_> {
    async fn run(&self, left: &[Leftover]) -> Result<String> {
        let (mut count, mut errors, mut runs) = (Count::default(), Vec::new(), BTreeMap::new());
        for (run, things) in by_run(left) {
            let life = self.life(&things).await;
            for thing in &things {
                info!("{}: {}", in_words(thing), life.in_words());
            }
            let over = matches!(life, Life::Over);
            let ended = if over { self.end(&things).await } else { Ok(()) };
            count.add(over, things.len());
            let machine = things.iter().any(|thing| thing.what == LeftoverKind::Machine);
            let fate = if !over || ended.is_err() {
                Fate::Kept
            } else if machine {
                Fate::Ended
            } else {
                Fate::Gone
            };
            runs.insert(run, fate);
            errors.extend(ended.err());
        }
        errors.extend(self.sweep_runners(&runs, &mut count).await);
        let Count { removed, alone } = count;
        if self.dry_run {
            return Ok(format!("DRY_RUN: {removed} would be removed, {alone} left alone; nothing was"));
        }
        Error::all("not everything could be removed", errors).map_err(|error| error.kind(Kind::Machine))?;
        Ok(format!("{removed} removed, {alone} left alone"))
    }

    /// Ends what is there of a run at AWS, and first what still runs of it at Bitbucket.
    async fn end(&self, things: &[&Leftover]) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        let run = &things[0].run;
        // Nobody follows them any more.
        if let Some(bitbucket) = self.bitbucket.filter(|_| things[0].followed)
            && let Err(error) = bitbucket.stop_runs_of(None, run.as_str()).await
        {
            warn!("{}", chain(&error));
        }
        self.cloud.delete_run_resources(run).await
    }
}

fn by_run(left: &[Leftover]) -> BTreeMap<&str, Vec<&Leftover>> {
    let mut runs = BTreeMap::<&str, Vec<&Leftover>>::new();
    for thing in left {
        runs.entry(thing.run.as_str()).or_default().push(thing);
    }
    runs
}

fn in_words(thing: &Leftover) -> String {
    let what = match thing.what {
        LeftoverKind::Machine => "machine",
        LeftoverKind::Template => "launch template",
        LeftoverKind::Group => "security group",
    };
    let number = thing.number.as_ref().map_or_else(String::new, |number| format!(" of pipeline #{number}"));
    format!("{what} {} in {}{number}", thing.id, thing.region)
}
