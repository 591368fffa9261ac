//! Machines rented from AWS.
//!
//! Every resource carries the run's tags from the call that makes it, and there is no other record: whenever
//! a pipe is killed, its tags find all that it left, and its machines end themselves.

mod boot;
mod client;
mod credentials;
mod ending;
mod error_class;
mod failure;
mod fleet;
mod fleet_refusals;
mod group;
mod leftovers;
mod machines;
pub mod plan;
mod pools;
mod quotas;
mod refusals;
mod rehearsal;
pub mod rounds;
mod sdk_config;
mod search;
mod tags;
mod takeover;
mod template;
mod user_data;

pub use client::AwsClients;
pub use leftovers::{Leftover, LeftoverKind};
pub use tags::Owner;
pub use takeover::RunnerMachine;

use ending::CleanupScope;
use fleet::LaunchedMachine;
use futures_util::future::join_all;
use machines::Ec2Instance;
use plan::{Plan, PricedMachine, RegionPlan};
use pools::CapacityType;
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

/// How long to wait for a machine's prices: a run begins without them rather than later.
const PRICE_TIMEOUT: Duration = Duration::from_secs(10);

/// AWS as a provider of machines.
pub struct Ec2 {
    aws: AwsSettings,
    owner: Owner,
    clients: Arc<AwsClients>,
    plan: OnceCell<Plan>,
    /// The program that machines get as their agent, if it is not this program.
    program: Option<PathBuf>,
    /// The agent, packed while the first machine boots.
    packed: OnceCell<PackedAgent>,
    /// The machines' host key, made for this process: a machine that has it was launched by this process.
    host: KeyPair,
    host_key: String,
    client: KeyPair,
    /// The launch templates' ids by region and capacity type, each with its run.
    templates: Mutex<BTreeMap<(String, CapacityType), (RunId, String)>>,
    /// Locked while a fleet is being asked for. The asking goes on when its caller is dropped.
    launches: Arc<Mutex<LaunchRecord>>,
}

/// The machines that this process launched.
#[derive(Debug, Default)]
struct LaunchRecord {
    /// Machines that this process launched and did not end. EC2 may not list them yet.
    launched: Vec<(RunId, LaunchedMachine)>,
    /// The ids of machines that this process has detached from.
    detached: BTreeSet<String>,
    /// Regions in which a fleet was asked for and no answer came: a machine may exist there unknown.
    unanswered: BTreeSet<String>,
}

impl LaunchRecord {
    fn knows(&self, id: &str) -> bool {
        self.detached.contains(id) || self.launched.iter().any(|(_, launched)| launched.id == id)
    }

    fn add(&mut self, run: &RunId, instance: &Ec2Instance) {
        let launched = LaunchedMachine { id: instance.id.clone(), pool: instance.pool.clone() };
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
            clients: Arc::new(AwsClients::new(&aws.account, owner.repository()).await?),
            aws,
            owner,
            plan: OnceCell::new(),
            program: None,
            packed: OnceCell::new(),
            host_key: host.public_openssh()?,
            host,
            client: KeyPair::new()?,
            templates: Mutex::default(),
            launches: Arc::default(),
        })
    }

    /// What would be rented. AWS is asked only once.
    pub async fn plan(&self) -> Result<&Plan> {
        self.plan.get_or_try_init(|| Plan::make(&self.clients, &self.aws)).await
    }

    /// The clients of the account, for calls that do not belong to one run.
    #[must_use]
    pub fn clients(&self) -> &AwsClients {
        &self.clients
    }

    fn region_plan(&self, region: &str) -> Option<&RegionPlan> {
        self.plan.get()?.regions.iter().find(|plan| plan.region == region)
    }

    fn tags(&self, run: &RunId) -> Tags {
        Tags::new(&self.owner, run, &self.aws.tags)
    }

    /// This provider, with another program as the machines' agent than the one that runs here.
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
    async fn alive(&self, run: &RunId) -> Result<Vec<Ec2Instance>> {
        Ok(machines::find_in_all_regions(
            &self.clients,
            &tags::tag_filter(tags::RUN_TAG, run.as_str()),
            &machines::ALIVE_STATES,
        )
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

    fn machine(instance: &Ec2Instance) -> Machine {
        let capacity = if instance.spot { CapacityType::Spot } else { CapacityType::OnDemand };
        let age = instance.launched.and_then(|launched| launched.elapsed().ok()).unwrap_or_default();
        Machine { age, ..Self::machine_in(&instance.id, &instance.pool, capacity) }
    }

    fn machine_in(id: &str, pool: &Pool, capacity: CapacityType) -> Machine {
        Machine {
            id: id.to_owned(),
            description: format!("{} in {}, {capacity} ({id})", pool.instance_type, pool.zone),
            spot: capacity == CapacityType::Spot,
            rate: None,
            pool: Some(pool.clone()),
            age: Duration::ZERO,
        }
    }

    /// The machine with its hourly rate, if that is known within [`PRICE_TIMEOUT`]. Called only once the
    /// machine exists: a launch must not wait for prices.
    async fn priced(&self, machine: Machine) -> Machine {
        let rate = tokio::time::timeout(PRICE_TIMEOUT, self.rate(&machine)).await.unwrap_or_default();
        Machine { rate, ..machine }
    }

    async fn rate(&self, machine: &Machine) -> Option<Rate> {
        let (region, pool) = (self.region_of(machine), machine.pool.as_ref()?);
        let plan = self.region_plan(region);
        let size = plan.map_or(0, |plan| plan.image.disk_size(self.aws.disk_size));
        let bought = PricedMachine {
            region,
            zone: &pool.zone,
            instance_type: &pool.instance_type,
            spot: machine.spot,
            disk: (&self.aws.disk_type, size),
            public: plan.is_none_or(|plan| plan.network.public),
        };
        plan::rate(&self.clients, bought).await
    }
}

impl Compute for Ec2 {
    type Link = SshLink;

    async fn prepare(&self) -> Result<()> {
        self.plan().await.map(drop)
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<Machine> {
        let machine = Box::pin(self.search(request)).await?;
        Ok(self.priced(machine).await)
    }

    async fn find(&self, run: &RunId) -> Result<Vec<Machine>> {
        let found = self.alive(run).await?;
        if !found.is_empty() {
            // A disk's price depends on the plan. A plan that fails is told elsewhere.
            self.plan().await.ok();
        }
        let priced = found.iter().map(|instance| self.priced(Self::machine(instance)));
        Ok(join_all(priced).await)
    }

    async fn launched_by_this_process(&self, run: &RunId) -> Result<Vec<Machine>> {
        let mut launches = self.launches.lock().await;
        for region in launches.unanswered.clone() {
            let instance =
                machines::find_by_host_key(&self.clients, &region, run, &self.host_key, |instance| {
                    !launches.knows(&instance.id)
                });
            if let Some(instance) = instance.await? {
                launches.add(run, &instance);
            }
        }
        let ours = launches.launched.iter().filter(|(its, _)| its == run);
        Ok(ours
            .map(|(_, launched)| Self::machine_in(&launched.id, &launched.pool, CapacityType::Spot))
            .collect())
    }

    async fn connect(&self, machine: &Machine, request: &LaunchRequest) -> Result<SshLink> {
        Box::pin(self.boot(machine, request)).await
    }

    async fn status(&self, machine: &Machine) -> Result<MachineStatus> {
        let region = self.region_of(machine);
        let (instance, status) = tokio::join!(
            machines::describe_twice(&self.clients, region, &machine.id),
            machines::spot_status(&self.clients, region, &machine.id)
        );
        let status = status.unwrap_or_else(|failure| {
            tracing::debug!("{failure}");
            None
        });
        Ok(machines::machine_status(instance?.as_ref(), status.as_ref()))
    }

    async fn terminate(&self, machine: &Machine) -> Result<()> {
        ending::terminate(&self.clients, self.region_of(machine), &machine.id).await?;
        self.launches.lock().await.launched.retain(|(_, launched)| launched.id != machine.id);
        Ok(())
    }

    async fn detach(&self, machine: &Machine, run: &RunId) -> Result<()> {
        let mut launches = self.launches.lock().await;
        launches.launched.retain(|(_, launched)| launched.id != machine.id);
        launches.detached.insert(machine.id.clone());
        drop(launches);
        ending::remove_all_templates(&self.clients, run).await
    }

    async fn delete_run_resources(&self, run: &RunId) -> Result<()> {
        ending::delete_run_resources(&self.clients, run, CleanupScope::ThisProcess(&self.host_key)).await
    }
}
