//! What to rent from AWS.

use super::super::Train;
use super::{ConfigReader, OIDC_TOKEN};
use std::time::Duration;
use trainspot_base::log::Secret;
use trainspot_compute::aws::{
    AccessKey, AwsAccount, AwsSettings, MachineNeeds, OidcRole, Purchase, SshAddress, SweepSettings,
};

/// A training that may take longer than this gets a warning if an interruption would lose it.
const LONG_RUNTIME: Duration = Duration::from_hours(2);
/// The names that AWS's credentials have in an environment.
const CREDENTIAL_NAMES: [&str; 4] =
    ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", OIDC_TOKEN];
/// The most tags that a user can set: AWS allows 50, and the others are trainspot's own.
const MOST_TAGS: usize = 40;

impl ConfigReader {
    pub(super) fn aws(&mut self) -> AwsSettings {
        let account = self.account();
        self.check_regions();
        self.check_together();
        AwsSettings {
            account,
            machine: self.wanted(),
            purchase: self.purchase(),
            max_price: self.money("MAX_PRICE"),
            max_cost: self.money("MAX_COST"),
            capacity_wait: self.capacity_wait(),
            spot_wait: self.duration("SPOT_WAIT"),
            image: self.some("IMAGE"),
            disk_size: self.some_count("DISK_SIZE"),
            disk_type: self.text("DISK_TYPE"),
            instance_profile: self.some("INSTANCE_PROFILE"),
            subnets: self.list("SUBNET"),
            security_group: self.some("SECURITY_GROUP"),
            tags: self.tags(),
            startup_script: self.some("STARTUP_SCRIPT"),
            ssh_cidrs: self.list("SSH_CIDR"),
            ssh_address: self.ssh_address(),
            public_ip_url: self.text("PUBLIC_IP_URL"),
            boot_timeout: self.duration("BOOT_TIMEOUT"),
            dry_run: self.switch("DRY_RUN"),
        }
    }

    pub(super) fn sweep(&mut self) -> SweepSettings {
        SweepSettings {
            account: self.account(),
            public_ip_url: self.text("PUBLIC_IP_URL"),
            dry_run: self.switch("DRY_RUN"),
        }
    }

    pub(super) fn account(&mut self) -> AwsAccount {
        let oidc = self.oidc();
        let key = if oidc.is_none() { self.access_key() } else { None };
        AwsAccount { regions: self.regions(), oidc, key }
    }

    /// The role, if it can be assumed. Without the step's token an access key is used, as the official pipes
    /// do.
    fn oidc(&mut self) -> Option<OidcRole> {
        let role_arn = self.some("AWS_OIDC_ROLE_ARN")?;
        if let Some(token) = self.environment.get(OIDC_TOKEN) {
            let token = Secret::new(OIDC_TOKEN, token);
            return Some(OidcRole { role_arn, token });
        }
        let why = format!("needs 'oidc: true' in the step, which gives the pipe {OIDC_TOKEN}");
        if self.some("AWS_ACCESS_KEY_ID").is_some() {
            self.warnings.push(format!("AWS_OIDC_ROLE_ARN {why}; using AWS_ACCESS_KEY_ID instead"));
        } else {
            self.problems.add("AWS_OIDC_ROLE_ARN", why);
        }
        None
    }

    /// The access key, as this configuration has it: the AWS SDK would take `$AWS_SESSION_TOKEN` for a
    /// session, which the default in `pipe.yml` becomes where nothing expands it, and would sign with the
    /// spaces around a value.
    fn access_key(&mut self) -> Option<AccessKey> {
        self.check_key();
        Some(AccessKey {
            id: self.some("AWS_ACCESS_KEY_ID")?,
            secret: self.secret("AWS_SECRET_ACCESS_KEY")?,
            session_token: self.secret("AWS_SESSION_TOKEN"),
        })
    }

    fn check_key(&mut self) {
        let [id, secret, session] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"]
            .map(|name| self.missing(name));
        if id && !(secret && session) {
            self.problems
                .add("AWS_ACCESS_KEY_ID", "is missing: the rest of an access key is of use only with it");
        }
        if secret && !(id && session) {
            self.problems.add("AWS_SECRET_ACCESS_KEY", "is missing: an access key is of use only with it");
        }
        if session && self.text("AWS_ACCESS_KEY_ID").starts_with("ASIA") {
            self.problems.add(
                "AWS_SESSION_TOKEN",
                "is missing: an access key that begins with ASIA is of use only with it",
            );
        }
    }

    /// Refuses fallback regions together with things that exist in one region only.
    fn check_regions(&mut self) {
        if self.list("FALLBACK_REGIONS").is_empty() {
            return;
        }
        let is_ami = self.text("IMAGE").starts_with("ami-");
        for (name, given) in [
            ("SUBNET", !self.missing("SUBNET")),
            ("SECURITY_GROUP", !self.missing("SECURITY_GROUP")),
            ("IMAGE", is_ami),
        ] {
            if given {
                let what = if name == "IMAGE" { "an AMI's id as IMAGE" } else { name };
                self.problems.add(
                    "FALLBACK_REGIONS",
                    format!("is given together with {what}, which exists in one region only; leave one of them out"),
                );
            }
        }
    }

    fn check_together(&mut self) {
        if self.purchase() == Purchase::OnDemand && !self.missing("MAX_PRICE") {
            self.problems.add(
                "MAX_PRICE",
                "is given together with PURCHASE 'on-demand', whose price is fixed; leave it out, or limit the whole by MAX_COST",
            );
        }
        if self.purchase() != Purchase::SpotThenOnDemand && self.chosen("SPOT_WAIT") {
            self.problems.add(
                "SPOT_WAIT",
                "is given without PURCHASE 'spot-then-on-demand', the only one that it is for; for the whole search there is CAPACITY_WAIT",
            );
        }
        if !self.missing("SECURITY_GROUP") && !self.missing("SSH_CIDR") {
            self.problems.add(
                "SSH_CIDR",
                "is given together with SECURITY_GROUP, whose rules are left as they are; leave one of them out",
            );
        }
        if self.list("TAGS").len() > MOST_TAGS {
            self.problems
                .add("TAGS", format!("are more than {MOST_TAGS}; AWS allows no more beside trainspot's own"));
        }
    }

    fn regions(&self) -> Vec<String> {
        let mut regions = vec![self.text("AWS_DEFAULT_REGION")];
        for region in self.list("FALLBACK_REGIONS") {
            if !regions.contains(&region) {
                regions.push(region);
            }
        }
        regions
    }

    fn wanted(&mut self) -> MachineNeeds {
        const MINIMUM_NAMES: [&str; 4] = ["CPUS", "MEMORY", "GPU", "GPU_MEMORY"];
        let given: Vec<&str> = MINIMUM_NAMES.into_iter().filter(|name| !self.missing(name)).collect();
        let types = !self.missing("INSTANCE_TYPE");
        for name in given.iter().filter(|_| types) {
            self.problems.add(*name, "is given together with INSTANCE_TYPE; leave one of them out");
        }
        let nothing = given.iter().all(|name| self.values.contains_key(name) && self.count(name) == 0);
        if !types && nothing {
            self.problems.add(
                "INSTANCE_TYPE",
                "is missing: name the types that will do, or say what any type must have by CPUS, MEMORY, GPU or GPU_MEMORY",
            );
        }
        if self.some_count("GPU") == Some(0) && self.count("GPU_MEMORY") > 0 {
            self.problems.add("GPU_MEMORY", "is given together with GPU '0'; leave one of them out");
        }
        if types {
            let mut types = Vec::new();
            for name in self.list("INSTANCE_TYPE") {
                if !types.contains(&name) {
                    types.push(name);
                }
            }
            return MachineNeeds::Types(types);
        }
        let gpu_memory = self.count("GPU_MEMORY");
        let gpus = self.some_count("GPU").unwrap_or(u32::from(gpu_memory > 0));
        MachineNeeds::AtLeast { cpus: self.count("CPUS"), memory: self.count("MEMORY"), gpus, gpu_memory }
    }

    fn purchase(&self) -> Purchase {
        let all = [
            ("spot", Purchase::Spot),
            ("spot-then-on-demand", Purchase::SpotThenOnDemand),
            ("on-demand", Purchase::OnDemand),
        ];
        self.choice("PURCHASE", &all, Purchase::Spot)
    }

    fn ssh_address(&self) -> SshAddress {
        let all =
            [("auto", SshAddress::Auto), ("public", SshAddress::Public), ("private", SshAddress::Private)];
        self.choice("SSH_ADDRESS", &all, SshAddress::Auto)
    }

    fn tags(&mut self) -> Vec<(String, String)> {
        let mut tags: Vec<(String, String)> = Vec::new();
        for (key, value) in self.list("TAGS").iter().filter_map(|tag| tag.split_once('=')) {
            if tags.iter().any(|(other, _)| other == key) {
                self.problems.add("TAGS", format!("have the key '{key}' twice"));
            } else {
                tags.push((key.to_owned(), value.to_owned()));
            }
        }
        tags
    }

    /// Warns of training that an interruption would lose, where the user named a long time: the default says
    /// nothing of the training.
    pub(super) fn warn_of_lost_work(&mut self, aws: &AwsSettings, train: &Train) {
        let long = self.chosen("MAX_RUNTIME") && train.max_runtime > LONG_RUNTIME;
        if long && train.checkpoints.is_empty() && aws.purchase != Purchase::OnDemand {
            self.warnings.push(
                "a spot machine can be taken away, and without CHECKPOINTS the training then begins again from zero; save checkpoints, or use PURCHASE 'on-demand'".to_owned(),
            );
        }
    }

    pub(super) fn warn_of_keys(&mut self, train: &Train) {
        let named: Vec<&str> =
            CREDENTIAL_NAMES.into_iter().filter(|name| train.environment.contains_key(*name)).collect();
        if !named.is_empty() {
            self.warnings.push(format!(
                "TRAIN_ENV gives {} to the rented machine; by INSTANCE_PROFILE the training gets credentials of its own",
                named.join(", ")
            ));
        }
    }
}
