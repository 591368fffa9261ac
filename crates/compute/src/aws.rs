//! What to rent from AWS, and how.

use std::fmt;
use std::time::Duration;
use trainspot_base::log::Secret;

/// The images that have a name, as values of `IMAGE`.
pub const IMAGES: [&str; 4] = ["ubuntu-24.04", "ubuntu-22.04", "al2023", "deep-learning"];

/// Where in AWS, and as whom.
#[derive(Clone, Debug)]
pub struct AwsAccount {
    /// `AWS_DEFAULT_REGION`, then `FALLBACK_REGIONS`: where to look, in this order. Never empty.
    pub regions: Vec<String>,
    /// The role to take by the step's OIDC token.
    pub oidc: Option<OidcRole>,
    /// The access key, where there is no role. With neither, credentials come from where else the AWS SDK
    /// looks.
    pub key: Option<AccessKey>,
}

/// What to remove from AWS.
#[derive(Clone, Debug)]
pub struct SweepSettings {
    /// Where, and as whom.
    pub account: AwsAccount,
    /// Where the pipe's own public address is asked for.
    pub public_ip_url: String,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What to rent from AWS, and how.
#[derive(Clone, Debug)]
pub struct AwsSettings {
    /// Where, and as whom.
    pub account: AwsAccount,
    /// Which machines will do.
    pub machine: MachineNeeds,
    /// How to pay.
    pub purchase: Purchase,
    /// The most that an hour of spot may cost, in dollars; the on-demand price where this is not set.
    pub max_price: Option<f64>,
    /// The run is ended, checkpoint first, when it cost this much, in dollars.
    pub max_cost: Option<f64>,
    /// How long to go on looking for capacity.
    pub capacity_wait: Duration,
    /// How long to look for spot alone, where on demand will do as well.
    pub spot_wait: Duration,
    /// One of [`IMAGES`], an AMI's id, or an SSM parameter; by the machine where it is not set.
    pub image: Option<String>,
    /// The least size of the root volume, in GiB; the image's own where that is larger.
    pub disk_size: Option<u32>,
    /// The root volume's type: `gp3` or `gp2`. Those with provisioned operations would need their number as
    /// well.
    pub disk_type: String,
    /// The name or the ARN of an instance profile, for trainings that call AWS themselves.
    pub instance_profile: Option<String>,
    /// Subnets to choose from; those of the default VPC where there are none.
    pub subnets: Vec<String>,
    /// The security group to use; one is made for the run where this is not set.
    pub security_group: Option<String>,
    /// Tags on everything that is made, besides our own.
    pub tags: Vec<(String, String)>,
    /// Shell commands that run as root on the machine, before the training.
    pub startup_script: Option<String>,
    /// From where port 22 may be reached, in CIDR's canonical form; the pipe's own address where there are
    /// none.
    pub ssh_cidrs: Vec<String>,
    /// By which address to reach the machine.
    pub ssh_address: SshAddress,
    /// Where the pipe's own public address is asked for.
    pub public_ip_url: String,
    /// A machine that is not ready after this time is given up.
    pub boot_timeout: Duration,
    /// Only say what would be rented.
    pub dry_run: bool,
}

/// A role, and the token by which it is taken.
#[derive(Clone)]
pub struct OidcRole {
    /// The role's ARN.
    pub role_arn: String,
    /// `BITBUCKET_STEP_OIDC_TOKEN`.
    pub token: Secret,
}

impl fmt::Debug for OidcRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Oidc({})", self.role_arn)
    }
}

/// An access key.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
    /// `AWS_SESSION_TOKEN`, which a temporary key has.
    pub session_token: Option<String>,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AccessKey({})", self.id)
    }
}

/// Which machines will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineNeeds {
    /// One of these types.
    Types(Vec<String>),
    /// Any type with at least this much.
    AtLeast {
        /// Virtual CPUs.
        cpus: u32,
        /// Memory, in GiB.
        memory: u32,
        /// GPUs.
        gpus: u32,
        /// Memory of all GPUs together, in GiB.
        gpu_memory: u32,
    },
}

impl MachineNeeds {
    /// Whether the wish names a GPU; a list of types tells only by its types.
    #[must_use]
    pub fn names_a_gpu(&self) -> bool {
        matches!(self, Self::AtLeast { gpus, gpu_memory, .. } if *gpus > 0 || *gpu_memory > 0)
    }
}

/// How to pay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purchase {
    /// Spot, or nothing.
    Spot,
    /// Spot where there is some, else on demand.
    SpotThenOnDemand,
    /// On demand.
    OnDemand,
}

/// By which address the pipe reaches the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshAddress {
    /// The private one if the pipe runs inside the VPC, else the public one.
    Auto,
    /// The public one.
    Public,
    /// The private one; the machine then gets no public address.
    Private,
}
