//! What to rent from AWS, and how.

use secrecy::SecretString;
use std::time::Duration;
use trainspot_base::log::Secret;

/// The names of images that `IMAGE` takes, beside AMIs' ids and SSM parameters.
pub const IMAGE_NAMES: [&str; 4] = ["ubuntu-24.04", "ubuntu-22.04", "al2023", "deep-learning"];

/// The regions and the credentials to use at AWS.
#[derive(Clone, Debug)]
pub struct AwsAccount {
    /// `AWS_DEFAULT_REGION`, then `FALLBACK_REGIONS`, in the order in which they are tried. Never empty.
    pub regions: Vec<String>,
    /// The role that the pipe assumes by the step's OIDC token.
    pub oidc: Option<OidcRole>,
    /// The access key, where there is no role. With neither, the credentials come from the AWS SDK's default
    /// chain.
    pub key: Option<AccessKey>,
}

/// How a sweep reaches AWS, and whether it removes anything.
#[derive(Clone, Debug)]
pub struct SweepSettings {
    /// The regions and the credentials.
    pub account: AwsAccount,
    /// The URL of the service that tells the pipe its own public address.
    pub public_ip_url: String,
    /// Only say what would be removed.
    pub dry_run: bool,
}

/// What to rent from AWS, and how.
#[derive(Clone, Debug)]
pub struct AwsSettings {
    /// The regions and the credentials.
    pub account: AwsAccount,
    /// Which types of machines will do.
    pub machine: MachineNeeds,
    /// Spot, on demand, or both.
    pub purchase: Purchase,
    /// The highest price of a spot machine, in dollars an hour; the on-demand price where this is not set.
    pub max_price: Option<f64>,
    /// The run is ended, after a checkpoint, once it has cost this many dollars.
    pub max_cost: Option<f64>,
    /// How long to go on looking for capacity.
    pub capacity_wait: Duration,
    /// With [`Purchase::SpotThenOnDemand`]: how long to look for spot alone.
    pub spot_wait: Duration,
    /// One of [`IMAGE_NAMES`], an AMI's id, or an SSM parameter. Where this is not set, the image depends on
    /// whether the machine has a GPU.
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
    /// The user's tags, for every resource that is made, beside the pipe's own.
    pub tags: Vec<(String, String)>,
    /// Shell commands that run as root on the machine, before the training.
    pub startup_script: Option<String>,
    /// The address ranges that may reach port 22, in CIDR's canonical form. Where there are none, the pipe's
    /// own address may.
    pub ssh_cidrs: Vec<String>,
    /// Which of the machine's addresses the pipe connects to.
    pub ssh_address: SshAddress,
    /// The URL of the service that tells the pipe its own public address.
    pub public_ip_url: String,
    /// A machine that is not ready this long after its launch is ended.
    pub boot_timeout: Duration,
    /// Only say what would be rented.
    pub dry_run: bool,
}

/// An IAM role, and the OIDC token by which the pipe assumes it.
#[derive(Clone, Debug)]
pub struct OidcRole {
    /// The role's ARN.
    pub role_arn: String,
    /// `BITBUCKET_STEP_OIDC_TOKEN`.
    pub token: Secret,
}

/// An access key of AWS.
#[derive(Clone, Debug)]
pub struct AccessKey {
    /// `AWS_ACCESS_KEY_ID`.
    pub id: String,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret: SecretString,
    /// `AWS_SESSION_TOKEN`, which a temporary key has.
    pub session_token: Option<SecretString>,
}

/// Which types of machines will do.
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
    /// Whether a GPU is asked for by number or memory. A list of types is never taken for one.
    #[must_use]
    pub fn names_a_gpu(&self) -> bool {
        matches!(self, Self::AtLeast { gpus, gpu_memory, .. } if *gpus > 0 || *gpu_memory > 0)
    }
}

/// Which ways to pay may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purchase {
    /// Spot only.
    Spot,
    /// Spot where there is capacity, else on demand.
    SpotThenOnDemand,
    /// On demand only.
    OnDemand,
}

/// Which of the machine's addresses the pipe connects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SshAddress {
    /// The private one if the pipe runs inside the VPC, else the public one.
    Auto,
    /// The public one.
    Public,
    /// The private one; the machine then gets no public address.
    Private,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_account_shows_its_credentials() {
        let role_arn = "arn:aws:iam::123456789012:role/r".to_owned();
        let oidc = OidcRole { role_arn, token: Secret::new("OIDC", "s3cret-token") };
        let (secret, session_token) = ("s3cret-key".into(), Some("s3cret-session".into()));
        let key = AccessKey { id: "AKIAEXAMPLE".to_owned(), secret, session_token };
        let account = AwsAccount { regions: Vec::new(), oidc: Some(oidc), key: Some(key) };
        let sweep = SweepSettings { account, public_ip_url: String::new(), dry_run: false };
        let shown = format!("{sweep:?}");
        assert!(shown.contains("role/r") && shown.contains("AKIAEXAMPLE"), "{shown}");
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
