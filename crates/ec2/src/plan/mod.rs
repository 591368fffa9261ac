//! What would be rented, where, from which image and for how much: known before anything is rented.

mod address;
mod credits;
mod images;
mod instances;
mod network;
mod prices;
mod print;
mod problem;
#[cfg(test)]
pub(super) mod sample;
mod waiting;

pub(super) use instances::requirements;
pub(super) use prices::{PricedMachine, rate};
pub use waiting::SideCosts;

pub(super) use address::{local as local_address, public as public_address};

use super::client::AwsClients;
use problem::{PlanProblem, both};
use std::net::IpAddr;
use trainspot_base::error::{Error, Result};
use trainspot_compute::aws::{AwsSettings, SshAddress};

/// How many types are shown with all their prices; a choice by attributes may have hundreds.
const TYPES_SHOWN: usize = 12;

/// All that renting needs to know. Made of calls that only read.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The regions in the order in which they are tried. Never empty.
    pub regions: Vec<RegionPlan>,
    /// The pipe's own address as the world sees it, if it could be told.
    pub own_address: Option<IpAddr>,
}

impl Plan {
    /// Finds out what would be rented, in every region at once.
    ///
    /// Until the launch may begin it waits for two calls, one after the other; a dry run asks for prices as
    /// well. A region that will not do is left out with a warning, as long as another one will.
    ///
    /// # Errors
    /// No region will do: all that stands in the way of each.
    pub async fn make(clients: &AwsClients, aws: &AwsSettings) -> Result<Self> {
        let regions =
            aws.account.regions.iter().map(async |name| (name.clone(), region(clients, aws, name).await));
        let (found, own) = futures_util::join!(futures_util::future::join_all(regions), own_address(aws));
        let (mut regions, mut refused) = (Vec::new(), Vec::new());
        for (name, result) in found {
            match result.and_then(|plan| let_in(plan, aws, own.as_ref())) {
                Ok(plan) => regions.push(plan),
                Err(problems) => refused.push((name, problems)),
            }
        }
        if regions.is_empty() {
            return Err(problem::error(&refused));
        }
        for (name, problems) in refused {
            let why = problems.iter().map(PlanProblem::text).collect::<Vec<_>>().join("; ");
            tracing::warn!("{name} is left out: {why}");
        }
        if aws.dry_run {
            futures_util::future::join_all(regions.iter_mut().map(|plan| price(clients, aws, plan))).await;
        }
        Ok(Self { regions, own_address: own.and_then(Result::ok) })
    }
}

async fn region(clients: &AwsClients, aws: &AwsSettings, name: &str) -> Result<RegionPlan, Vec<PlanProblem>> {
    let ec2 = clients.ec2(name);
    let machine = async {
        let (types, ids) =
            futures_util::join!(instances::find(&ec2, aws, name), images::ids(clients, aws, name));
        let gpu = types.as_ref().map_or_else(|_| aws.machine.names_a_gpu(), |choice| has_gpu(choice, aws));
        let image = images::describe(&ec2, aws, ids, gpu).await;
        both(types, image)
    };
    let (machine, network) = futures_util::join!(machine, network::find(&ec2, aws, name));
    let ((machine, image), network) = both(machine, network)?;
    let machine = in_zones(machine, &network)?;
    Ok(RegionPlan { region: name.to_owned(), machine, image, disk_price: None, network })
}

fn has_gpu(choice: &TypeChoice, aws: &AwsSettings) -> bool {
    aws.machine.names_a_gpu() || choice.types.iter().any(|offer| offer.gpus > 0)
}

/// The types that the subnets' zones have.
fn in_zones(mut choice: TypeChoice, network: &Network) -> Result<TypeChoice, Vec<PlanProblem>> {
    if choice.by_attributes {
        return Ok(choice);
    }
    let ours = |zone: &str| network.subnets.iter().any(|subnet| subnet.zone == zone);
    for offer in &mut choice.types {
        offer.spot.retain(|(zone, _)| ours(zone));
    }
    let (types, nowhere): (Vec<Offer>, Vec<Offer>) =
        choice.types.into_iter().partition(|offer| !offer.spot.is_empty());
    let names = nowhere.iter().map(|offer| offer.name.as_str()).collect::<Vec<_>>().join(", ");
    if types.is_empty() {
        let mut zones: Vec<&str> = network.subnets.iter().map(|subnet| subnet.zone.as_str()).collect();
        zones.dedup();
        let what =
            format!("names {names}, which none of the subnets' zones has ({}); see SUBNET", zones.join(", "));
        return Err(vec![PlanProblem::with("INSTANCE_TYPE", what)]);
    }
    if !nowhere.is_empty() {
        tracing::warn!("INSTANCE_TYPE: the subnets' zones have no {names}");
    }
    Ok(TypeChoice { types, ..choice })
}

/// The pipe's public address, where a rule may be made for it.
async fn own_address(aws: &AwsSettings) -> Option<Result<IpAddr>> {
    let needed =
        aws.ssh_cidrs.is_empty() && aws.security_group.is_none() && aws.ssh_address != SshAddress::Private;
    if needed { Some(address::public(&aws.public_ip_url).await) } else { None }
}

/// Lets the pipe's public address in where nothing else is to be let in.
fn let_in(
    mut plan: RegionPlan,
    aws: &AwsSettings,
    own: Option<&Result<IpAddr>>,
) -> Result<RegionPlan, Vec<PlanProblem>> {
    let network = &mut plan.network;
    if network.inbound.is_empty() && aws.security_group.is_none() {
        match own {
            Some(Ok(address)) => network.inbound.push(ipnet::IpNet::from(*address).to_string()),
            Some(Err(error)) => {
                let why = trainspot_base::error::chain(error);
                return Err(vec![PlanProblem::with("SSH_CIDR", format!("is not set, and {why}; set it"))]);
            }
            None => {}
        }
    }
    Ok(plan)
}

/// Adds what only a reader of the plan wants to know. What AWS does not tell stays unknown.
async fn price(clients: &AwsClients, aws: &AwsSettings, plan: &mut RegionPlan) {
    let size = plan.image.disk_size(aws.disk_size);
    let ec2 = clients.ec2(&plan.region);
    let offers = async {
        prices::fill(clients, &plan.region, &mut plan.machine.types, TYPES_SHOWN).await;
        let shown = plan.machine.types.len().min(TYPES_SHOWN);
        if plan.machine.by_attributes
            && let Err(failure) = instances::detail(&ec2, &mut plan.machine.types[..shown]).await
        {
            tracing::warn!("the sizes of the types are not shown: {}", Error::from(failure).render());
        }
    };
    let disk = prices::disk(clients, &plan.region, (&aws.disk_type, size));
    ((), plan.disk_price) = futures_util::join!(offers, disk);
}

impl Image {
    /// The size of the root volume, in GiB: as wanted, but never below the image's own.
    #[must_use]
    pub fn disk_size(&self, wanted: Option<u32>) -> u32 {
        wanted.unwrap_or(0).max(self.least_disk)
    }
}

/// One region's part of the plan.
#[derive(Clone, Debug)]
pub struct RegionPlan {
    /// The region's name.
    pub region: String,
    /// The types that may be rented.
    pub machine: TypeChoice,
    /// The image that the machine starts from.
    pub image: Image,
    /// What an hour of its disk costs, in dollars; known in a dry run, if it may be asked for.
    pub disk_price: Option<f64>,
    /// The network that the machine is put into.
    pub network: Network,
}

/// The instance types that may be rented in a region.
#[derive(Clone, Debug)]
pub struct TypeChoice {
    /// The types that will do, in the user's order; in a dry run the cheapest first.
    pub types: Vec<Offer>,
    /// Whether the fleet chooses by attributes (attribute-based selection); `types` is then what it chooses
    /// from.
    pub by_attributes: bool,
}

/// An instance type, and what it costs.
///
/// In a choice by attributes only its name is asked for before the launch; its sizes are then 0, its zones
/// none. Prices are asked for in a dry run only.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory: u64,
    /// GPUs, if they are NVIDIA's.
    pub gpus: u32,
    /// Memory of all GPUs together, in MiB.
    pub gpu_memory: u64,
    /// The spot price of an hour in each zone that has the type, in dollars; none where it is not known.
    pub spot: Vec<(String, Option<f64>)>,
    /// The on-demand price of an hour, in dollars, if it may be asked for.
    pub on_demand: Option<f64>,
}

/// The image that a machine starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The AMI's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The login user.
    pub user: String,
    /// The root device's name.
    pub root_device: String,
    /// The least size of the root volume, in GiB.
    pub least_disk: u32,
    /// The names of the further volumes that it comes with.
    pub further_devices: Vec<String>,
}

/// The network of a region that machines are put into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The VPC.
    pub vpc: String,
    /// Its address ranges.
    pub cidrs: Vec<String>,
    /// Subnets to choose from: one fleet tries them all.
    pub subnets: Vec<Subnet>,
    /// The group that the user named, by id.
    pub security_group: Option<String>,
    /// Whether the machine gets a public address.
    pub public: bool,
    /// Whether the pipe reaches the machine by its private address.
    pub by_private: bool,
    /// The address ranges from which the run's security group allows port 22; none where the user's group is
    /// used.
    pub inbound: Vec<String>,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// Its id.
    pub id: String,
    /// The zone that it lies in.
    pub zone: String,
}
