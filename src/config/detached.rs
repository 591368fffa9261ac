//! A training that outlives its pipe, and the store that keeps it.

use secrecy::SecretString;
use trainspot_compute::aws::AwsAccount;
use trainspot_store::{BucketAccess, StoreAddress};

/// How a training outlives its pipe.
///
/// `PUBLISH: none` goes with it: the pipe that is woken brings the outputs into its clone, and its step's
/// artifacts can keep them. So does `RESUME`: the clone's checkpoints go to the run's first machine alone.
#[derive(Debug)]
pub struct Detach {
    /// Where the run is kept.
    pub store: StoreSettings,
    /// The name or ARN of the profile by which the machine reaches the store; always there for a rented
    /// machine.
    pub instance_profile: Option<String>,
    /// The token by which the machine starts the pipeline again.
    pub wake_token: Option<SecretString>,
    /// The name or ARN of the `EventBridge` bus to which the machine sends an event.
    pub wake_bus: Option<String>,
    /// The custom pipeline that wakes the run, if one was named.
    pub wake_pipeline: Option<String>,
}

/// The store of detached runs, and how the pipe reaches it.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// Where the store is.
    pub address: StoreAddress,
    /// How the pipe reaches a bucket. With [`Self::account`] the credentials are those of an access key that
    /// was given, or else the default; a role's session has to be put there by who can assume the role.
    pub access: BucketAccess,
    /// The account that the machines are rented from; none for `CLOUD: local`.
    pub account: Option<AwsAccount>,
}
