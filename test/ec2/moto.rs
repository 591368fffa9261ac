//! `moto`, an EC2 that we did not write: a server for all tests of the process, an account for each of them.
//!
//! The AWS SDK reads where to go from the environment, which a process has one of. So a test with an account
//! runs in a process of its own: the test binary is started again, for this test alone.

use crate::support::say;
use aws_config::{BehaviorVersion, Region};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use trainspot_base::log::Secret;
use trainspot_compute::aws::{
    AccessKey, AwsAccount, AwsSettings, MachineNeeds, OidcRole, Purchase, SshAddress,
};

/// Set in the process that a test runs in.
const ACCOUNT: &str = "TRAINSPOT_TEST_ACCOUNT";

/// Importing moto takes seconds, more of them while others compile.
const START: Duration = Duration::from_mins(2);

/// A running server; it ends with this process, however that ends.
pub(crate) struct Moto {
    url: String,
    /// The folder of its Python.
    pub(crate) bin: String,
}

impl Moto {
    /// The server of all tests; the reason where there can be none.
    pub(crate) fn shared() -> Result<&'static Self, &'static String> {
        static SHARED: OnceLock<Result<Moto, String>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// A server of the caller's own.
    pub(crate) fn start() -> Result<Self, String> {
        let bin = venv()?;
        let program = format!("{bin}/moto_server");
        Self::run(bin, &[program])
    }

    fn run(bin: String, program: &[String]) -> Result<Self, String> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        for check in [
            "MOTO_ENABLE_AMI_VALIDATION",
            "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION",
            "MOTO_ENABLE_KEYPAIR_VALIDATION",
        ] {
            command.env(check, "1");
        }
        let (started, is_started) = mpsc::channel();
        let (ended, is_ended) = mpsc::channel();
        // The signal comes when the thread ends that started the process, so it must be one that stays.
        std::thread::spawn(move || {
            let child = command.spawn();
            started.send(child.as_ref().map(drop).map_err(ToString::to_string)).unwrap();
            let end = child.and_then(|mut child| child.wait());
            say(&format!("moto_server ended: {end:?}"));
            ended.send(()).ok();
        });
        is_started.recv().unwrap().map_err(|error| format!("setpriv does not start: {error}"))?;
        let give_up = Instant::now() + START;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(is_ended.try_recv().is_err(), "moto_server ended before it answered");
            if Instant::now() > give_up {
                return Err(format!("moto_server does not answer within {START:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { url: format!("http://127.0.0.1:{port}"), bin })
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

fn venv() -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let made = Command::new(root.join("scripts/venv.sh"))
        .args(["rig", "test/rig/requirements.txt"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("scripts/venv.sh: {error}"))?;
    if !made.status.success() {
        return Err(format!("no Python packages: {}", String::from_utf8_lossy(&made.stderr)));
    }
    Ok(String::from_utf8(made.stdout).unwrap().trim().to_owned())
}

/// Runs a test at the shared server, with an account of its own there.
pub(crate) fn with_account(account: &str, body: impl AsyncFnOnce(Account)) {
    if std::env::var_os(ACCOUNT).is_some() {
        return run(body(Account::numbered(account)));
    }
    match Moto::shared() {
        Ok(moto) => again(&[(ACCOUNT, account), ("AWS_ENDPOINT_URL", moto.url())]),
        Err(reason) => skip::skip(reason),
    }
}

/// Runs a test in a process that has these variables and nothing else of AWS.
pub(crate) fn with_environment(variables: &[(&str, &str)], body: impl AsyncFnOnce()) {
    if std::env::var_os(ACCOUNT).is_some() {
        return run(body());
    }
    again(&[variables, &[(ACCOUNT, "none")]].concat());
}

fn run(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(body);
}

/// Starts this binary again, for the test of this thread.
fn again(variables: &[(&str, &str)]) {
    let home = tempfile::tempdir().unwrap();
    let name = std::thread::current().name().unwrap().to_owned();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env_clear()
        .env("HOME", home.path())
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    // A name that matches nothing is a success to the test harness.
    assert!(output.status.success() && said.contains("1 passed"), "{name}:\n{said}");
}

/// An account at the server, with a role to take by token.
pub(crate) struct Account {
    number: String,
}

impl Account {
    /// The account of this number.
    pub(crate) fn numbered(number: &str) -> Self {
        Self { number: number.to_owned() }
    }

    /// The role's ARN.
    pub(crate) fn role(&self) -> String {
        format!("arn:aws:iam::{}:role/train", self.number)
    }

    /// What a small training asks for, by OIDC. The pipe's address is known, so no service is asked for it.
    pub(crate) fn aws(&self, regions: &[&str], types: &[&str]) -> AwsSettings {
        let token = Secret::new("BITBUCKET_STEP_OIDC_TOKEN", "e30.e30.sig");
        let mut aws = plain(regions, types);
        aws.account.oidc = Some(OidcRole { role_arn: self.role(), token });
        aws
    }

    /// The account's EC2 for setting a scene.
    pub(crate) async fn ec2(&self, region: &str) -> aws_sdk_ec2::Client {
        let config = aws_config::defaults(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .no_credentials()
            .load()
            .await;
        let request = aws_sdk_sts::Client::new(&config).assume_role_with_web_identity();
        let request = request.role_arn(self.role()).role_session_name("scene").web_identity_token("token");
        let given = request.send().await.unwrap().credentials.unwrap();
        let keys = aws_sdk_ec2::config::Credentials::new(
            given.access_key_id,
            given.secret_access_key,
            Some(given.session_token),
            None,
            "scene",
        );
        let config = aws_sdk_ec2::config::Builder::from(&config).credentials_provider(keys).build();
        aws_sdk_ec2::Client::from_conf(config)
    }

    /// Gives the default VPC its way to the internet, which AWS's has and moto's lacks.
    pub(crate) async fn open(&self, region: &str) -> aws_sdk_ec2::Client {
        let ec2 = self.ec2(region).await;
        let vpc = ec2.describe_vpcs().send().await.unwrap().vpcs()[0].vpc_id().unwrap().to_owned();
        let gateway = ec2.create_internet_gateway().send().await.unwrap().internet_gateway.unwrap();
        let gateway = gateway.internet_gateway_id.unwrap();
        ec2.attach_internet_gateway().internet_gateway_id(&gateway).vpc_id(vpc).send().await.unwrap();
        let table = ec2.describe_route_tables().send().await.unwrap().route_tables()[0].clone();
        let route = ec2.create_route().route_table_id(table.route_table_id.unwrap());
        route.destination_cidr_block("0.0.0.0/0").gateway_id(gateway).send().await.unwrap();
        ec2
    }
}

/// The access key of the environment, as the pipe's configuration reads it.
pub(crate) fn key_of_the_environment() -> Option<AccessKey> {
    let get = |name: &str| std::env::var(name).ok();
    Some(AccessKey {
        id: get("AWS_ACCESS_KEY_ID")?,
        secret: get("AWS_SECRET_ACCESS_KEY")?.into(),
        session_token: get("AWS_SESSION_TOKEN").map(Into::into),
    })
}

/// What a small training asks for, without a role.
pub(crate) fn plain(regions: &[&str], types: &[&str]) -> AwsSettings {
    let texts = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
    AwsSettings {
        account: AwsAccount { regions: texts(regions), oidc: None, key: key_of_the_environment() },
        machine: MachineNeeds::Types(texts(types)),
        purchase: Purchase::Spot,
        max_price: None,
        max_cost: None,
        capacity_wait: Duration::from_mins(1),
        spot_wait: Duration::ZERO,
        image: Some("al2023".to_owned()),
        disk_size: Some(50),
        disk_type: "gp3".to_owned(),
        instance_profile: None,
        subnets: Vec::new(),
        security_group: None,
        tags: Vec::new(),
        startup_script: None,
        ssh_cidrs: vec!["203.0.113.7/32".to_owned()],
        ssh_address: SshAddress::Public,
        public_ip_url: "http://127.0.0.1:9".to_owned(),
        boot_timeout: Duration::from_mins(10),
        dry_run: false,
    }
}
