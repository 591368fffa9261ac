//! Machines rented from AWS.
//!
//! Everything that is made carries the run's tags from the call that makes it. Beside that there is no
//! record: a pipe that was killed at any instant has left nothing that its tags do not find, and no machine
//! that does not end itself.

mod boot;
mod client;
mod credentials;
mod ending;
mod failure;
mod fleet;
mod group;
mod leftovers;
mod machines;
pub mod plan;
mod pools;
mod quotas;
mod refusals;
mod rehearsal;
pub mod rounds;
mod search;
mod tags;
mod takeover;
mod template;
mod user_data;

pub use client::Cloud;
pub use leftovers::{Left, Leftover};
pub use tags::Owner;
pub use takeover::RunnersMachine;

use ending::Whose;
use fleet::Launched;
use futures_util::future::join_all;
use machines::Seen;
use plan::{Bought, Plan, RegionPlan};
use pools::Mode;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tags::Tags;
use tokio::sync::{Mutex, OnceCell};
use trainspot_base::error::Result;
use trainspot_compute::aws::AwsSettings;
use trainspot_compute::link::ssh::{KeyPair, PackedAgent, SshLink};
use trainspot_compute::{Compute, LaunchRequest, Machine, MachineStatus, Pool, Rate, RunId};

/// Prices that take longer than this to be told are not worth the wait.
const PRICES: Duration = Duration::from_secs(10);

/// AWS as a provider of machines.
pub struct Ec2 {
    aws: AwsSettings,
    owner: Owner,
    cloud: Arc<Cloud>,
    plan: OnceCell<Plan>,
    /// The program that goes to each machine as its agent, if it is not this one; packed while the first one
    /// boots.
    program: Option<PathBuf>,
    packed: OnceCell<PackedAgent>,
    /// Made for this process: whoever knows these keys launched the machine.
    host: KeyPair,
    host_key: String,
    client: KeyPair,
    /// Templates by region and way to pay, and the run that they are for.
    templates: Mutex<BTreeMap<(String, Mode), (RunId, String)>>,
    /// Held while a fleet is being asked for, which goes on when the one who asked is gone.
    made: Arc<Mutex<Made>>,
}

/// What this process launched.
#[derive(Debug, Default)]
struct Made {
    /// And did not end: EC2 may not list a machine yet that it has just launched.
    launched: Vec<(RunId, Launched)>,
    /// And left to themselves: they are not this process's any more.
    handed_over: BTreeSet<String>,
    /// Regions where a fleet was asked for and no answer came: there may be a machine that nobody knows of.
    unanswered: BTreeSet<String>,
}

impl Made {
    fn knows(&self, id: &str) -> bool {
        self.handed_over.contains(id) || self.launched.iter().any(|(_, launched)| launched.id == id)
    }

    fn add(&mut self, run: &RunId, seen: &Seen) {
        let launched = Launched { id: seen.id.clone(), pool: seen.pool.clone() };
        self.launched.push((run.clone(), launched));
    }
}

impl Ec2 {
    /// Finds the credentials. Nothing is asked of EC2 yet.
    ///
    /// # Errors
    /// There are no credentials, or AWS does not take them.
    pub async fn new(aws: AwsSettings, owner: Owner) -> Result<Self> {
        let host = KeyPair::new()?;
        Ok(Self {
            cloud: Arc::new(Cloud::new(&aws.account, owner.repository()).await?),
            aws,
            owner,
            plan: OnceCell::new(),
            program: None,
            packed: OnceCell::new(),
            host_key: host.public_openssh()?,
            host,
            client: KeyPair::new()?,
            templates: Mutex::default(),
            made: Arc::default(),
        })
    }

    /// What would be rented. Asked of AWS once.
    pub async fn plan(&self) -> Result<&Plan> {
        self.plan.get_or_try_init(|| Plan::make(&self.cloud, &self.aws)).await
    }

    /// The account, for what is not this run's alone.
    #[must_use]
    pub fn cloud(&self) -> &Cloud {
        &self.cloud
    }

    fn planned(&self, region: &str) -> Option<&RegionPlan> {
        self.plan.get()?.regions.iter().find(|plan| plan.region == region)
    }

    fn tags(&self, run: &RunId) -> Tags {
        Tags::new(&self.owner, run, &self.aws.tags)
    }

    /// The same with another program as the machines' agent than the one that runs here.
    #[must_use]
    pub fn with_agent(self, program: PathBuf) -> Self {
        Self { program: Some(program), ..self }
    }

    async fn packed(&self) -> Result<&PackedAgent> {
        let pack = async || match &self.program {
            Some(program) => PackedAgent::program(program).await,
            None => PackedAgent::this_program().await,
        };
        self.packed.get_or_try_init(pack).await
    }

    /// The machines of a run.
    async fn alive(&self, run: &RunId) -> Result<Vec<Seen>> {
        Ok(machines::everywhere(&self.cloud, &tags::tagged(tags::RUN, run.as_str()), &machines::ALIVE)
            .await?)
    }

    /// The region of a machine. A zone's name begins with its region's.
    fn region_of<'a>(&'a self, machine: &'a Machine) -> &'a str {
        let zone = machine.pool.as_ref().map_or("", |pool| pool.zone.as_str());
        self.region_of_zone(zone)
    }

    fn region_of_zone<'a>(&'a self, zone: &'a str) -> &'a str {
        let regions = self.aws.account.regions.iter().filter(|region| zone.starts_with(region.as_str()));
        regions
            .max_by_key(|region| region.len())
            .or(self.aws.account.regions.first())
            .map_or(zone, String::as_str)
    }

    fn machine(seen: &Seen) -> Machine {
        let mode = if seen.spot { Mode::Spot } else { Mode::OnDemand };
        let age = seen.launched.and_then(|launched| launched.elapsed().ok()).unwrap_or_default();
        Machine { age, ..Self::machine_in(&seen.id, &seen.pool, mode) }
    }

    fn machine_in(id: &str, pool: &Pool, mode: Mode) -> Machine {
        Machine {
            id: id.to_owned(),
            description: format!("{} in {}, {mode} ({id})", pool.instance_type, pool.zone),
            spot: mode == Mode::Spot,
            rate: None,
            pool: Some(pool.clone()),
            age: Duration::ZERO,
        }
    }

    /// A machine with what it costs, if that can be told soon. Asked for only once it is there: it must not
    /// wait for that.
    async fn priced(&self, machine: Machine) -> Machine {
        let rate = tokio::time::timeout(PRICES, self.rate(&machine)).await.unwrap_or_default();
        Machine { rate, ..machine }
    }

    async fn rate(&self, machine: &Machine) -> Option<Rate> {
        let (region, pool) = (self.region_of(machine), machine.pool.as_ref()?);
        let plan = self.planned(region);
        let size = plan.map_or(0, |plan| plan.image.disk_size(self.aws.disk_size));
        let bought = Bought {
            region,
            zone: &pool.zone,
            instance_type: &pool.instance_type,
            spot: machine.spot,
            disk: (&self.aws.disk_type, size),
            public: plan.is_none_or(|plan| plan.network.public),
        };
        plan::rate(&self.cloud, bought).await
    }
}

impl Compute for Ec2 {
    type Link = SshLink;

    async fn prepare(&self) -> Result<()> {
        self.plan().await.map(drop)
    }

    async fn launch(&self, order: &LaunchRequest) -> Result<Machine> {
        let machine = Box::pin(self.search(order)).await?;
        Ok(self.priced(machine).await)
    }

    async fn find(&self, run: &RunId) -> Result<Vec<Machine>> {
        let found = self.alive(run).await?;
        if !found.is_empty() {
            // What a disk costs depends on the plan; that it cannot be made is told elsewhere.
            self.plan().await.ok();
        }
        let priced = found.iter().map(|seen| self.priced(Self::machine(seen)));
        Ok(join_all(priced).await)
    }

    async fn launched_by_this_process(&self, run: &RunId) -> Result<Vec<Machine>> {
        let mut made = self.made.lock().await;
        for region in made.unanswered.clone() {
            let seen =
                machines::of_key(&self.cloud, &region, run, &self.host_key, |seen| !made.knows(&seen.id));
            if let Some(seen) = seen.await? {
                made.add(run, &seen);
            }
        }
        let ours = made.launched.iter().filter(|(its, _)| its == run);
        Ok(ours.map(|(_, launched)| Self::machine_in(&launched.id, &launched.pool, Mode::Spot)).collect())
    }

    async fn connect(&self, machine: &Machine, order: &LaunchRequest) -> Result<SshLink> {
        Box::pin(self.boot(machine, order)).await
    }

    async fn status(&self, machine: &Machine) -> Result<MachineStatus> {
        let region = self.region_of(machine);
        let (seen, status) = tokio::join!(
            machines::describe_surely(&self.cloud, region, &machine.id),
            machines::spot_status(&self.cloud, region, &machine.id)
        );
        let status = status.unwrap_or_else(|failure| {
            tracing::debug!("{failure}");
            None
        });
        Ok(machines::sight(seen?.as_ref(), status.as_ref()))
    }

    async fn terminate(&self, machine: &Machine) -> Result<()> {
        ending::terminate(&self.cloud, self.region_of(machine), &machine.id).await?;
        self.made.lock().await.launched.retain(|(_, launched)| launched.id != machine.id);
        Ok(())
    }

    async fn detach(&self, machine: &Machine, run: &RunId) -> Result<()> {
        let mut made = self.made.lock().await;
        made.launched.retain(|(_, launched)| launched.id != machine.id);
        made.handed_over.insert(machine.id.clone());
        drop(made);
        ending::remove_all_templates(&self.cloud, run).await
    }

    async fn delete_run_resources(&self, run: &RunId) -> Result<()> {
        ending::clean(&self.cloud, run, Whose::Ours(&self.host_key)).await
    }
}
