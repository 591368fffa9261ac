//! The rig: an EC2 whose instances boot, in a network of its own. A test of it runs in a process inside of
//! that network.

use crate::support::say;
use aws_config::{BehaviorVersion, Region};
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Set, to what the rig said of itself, in the process that a test runs in.
const FACTS: &str = "TRAINSPOT_TEST_LAB";
/// How a line starts that is shown of a test that passes.
pub(crate) const SHOWN: &str = "shown: ";
/// Its exit code where it cannot run.
const SKIP: i32 = 77;

/// The lab, as a test inside of its network sees it.
pub(crate) struct Lab {
    facts: Value,
    client: reqwest::Client,
    /// How long a whole short run takes here, once that was measured.
    short_run: tokio::sync::OnceCell<Duration>,
}

/// The length of a short run for which a test's limits hold as they are written. On two idle cores one takes
/// 9 s, so the limits have half as much again there.
const REFERENCE_RUN: Duration = Duration::from_secs(6);

/// Runs a test in a lab of its own, or says why it is skipped.
pub(crate) fn in_lab(body: impl AsyncFnOnce(&Lab)) {
    if let Ok(facts) = std::env::var(FACTS) {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_mins(1)).build().unwrap();
        let facts = serde_json::from_str(&facts).unwrap();
        let lab = Lab { facts, client, short_run: tokio::sync::OnceCell::new() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(async {
            for region in ["us-east-1", "eu-west-1", "ap-southeast-1"] {
                lab.open(region).await;
            }
            body(&lab).await;
        });
    }
    match Started::new() {
        Ok(started) => started.again(),
        Err(reason) => skip::skip(&reason),
    }
}

impl Lab {
    /// A variable that leads to the lab's services.
    pub(crate) fn variable(&self, name: &str) -> &str {
        self.facts["variables"][name].as_str().unwrap()
    }

    /// What the lab says of `path`.
    pub(crate) async fn get(&self, path: &str) -> Value {
        self.answer(self.client.get(self.url(path))).await
    }

    /// Asks the lab for something.
    pub(crate) async fn post(&self, path: &str, asked: Value) -> Value {
        self.answer(self.client.post(self.url(path)).body(asked.to_string())).await
    }

    /// A time limit for machines of this lab, longer as the host is slower: measured, once, by a short run.
    pub(crate) async fn patience(&self, limit: Duration) -> Duration {
        let measured = self.short_run.get_or_init(|| super::step::short_run(self)).await;
        let slowness = measured.div_duration_f64(REFERENCE_RUN).max(1.0);
        Duration::from_secs(limit.mul_f64(slowness).as_secs())
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> Value {
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{text}");
        serde_json::from_str(&text).unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.facts["control"].as_str().unwrap())
    }

    /// EC2 of a region, for a look at what is there.
    pub(crate) async fn ec2(&self, region: &str) -> aws_sdk_ec2::Client {
        let config = aws_config::defaults(BehaviorVersion::latest()).region(Region::new(region.to_owned()));
        aws_sdk_ec2::Client::new(&config.load().await)
    }

    /// The pipe's own address there.
    pub(crate) fn address(&self) -> &str {
        self.facts["address"].as_str().unwrap()
    }

    /// Gives a region's default VPC its way to the internet, which AWS's has and moto's lacks.
    async fn open(&self, region: &str) {
        let ec2 = self.ec2(region).await;
        let tables = ec2.describe_route_tables().send().await.unwrap();
        let table = &tables.route_tables()[0];
        if table.routes().iter().any(|route| route.gateway_id().is_some_and(|id| id.starts_with("igw-"))) {
            return;
        }
        let gateway = ec2.create_internet_gateway().send().await.unwrap().internet_gateway.unwrap();
        let gateway = gateway.internet_gateway_id.unwrap();
        let attached = ec2.attach_internet_gateway().internet_gateway_id(&gateway);
        attached.vpc_id(table.vpc_id().unwrap()).send().await.unwrap();
        let route = ec2.create_route().route_table_id(table.route_table_id().unwrap());
        route.destination_cidr_block("0.0.0.0/0").gateway_id(gateway).send().await.unwrap();
    }

    /// Makes calls fail from now on.
    pub(crate) async fn faults(&self, rules: Value) {
        self.post("faults", rules).await;
    }

    /// Fails unless nothing of any run is there.
    pub(crate) async fn assert_nothing_left(&self) {
        let left = self.get("leftovers").await;
        assert_eq!(left, json!([]), "{left:#}");
    }
}

struct Started {
    process: Child,
    facts: String,
    _folder: TempDir,
}

impl Started {
    fn new() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let venv = Command::new(root.join("scripts/venv.sh"))
            .args(["rig", "test/rig/requirements.txt"])
            .current_dir(root)
            .stderr(Stdio::inherit())
            .output()
            .unwrap();
        if !venv.status.success() {
            return Err("the rig's Python packages cannot be installed".to_owned());
        }
        let mut process = Command::new(format!("{}/python", String::from_utf8(venv.stdout).unwrap().trim()))
            .arg(root.join("test/rig/rig.py"))
            .args(["--end-with-stdin", "--ready"])
            .arg(&ready)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        loop {
            if let Ok(facts) = std::fs::read_to_string(&ready) {
                return Ok(Self { process, facts, _folder: folder });
            }
            if let Some(status) = process.try_wait().unwrap() {
                assert_eq!(status.code(), Some(SKIP), "the rig failed");
                return Err("the rig cannot run here; its reason is above".to_owned());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Starts this binary again inside of the lab's network, for the test of this thread.
    fn again(&self) {
        let facts: Value = serde_json::from_str(&self.facts).unwrap();
        let home = tempfile::tempdir().unwrap();
        let name = std::thread::current().name().unwrap().to_owned();
        let mut command = Command::new("nsenter");
        command.args(["-t", &facts["pid"].to_string(), "-n"]).arg(std::env::current_exe().unwrap());
        command.args([&name, "--exact", "--nocapture", "--test-threads=1"]);
        command.env_clear().env("PATH", std::env::var("PATH").unwrap()).env("HOME", home.path());
        for name in ["AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
            command.env(name, facts["variables"][name].as_str().unwrap());
        }
        let ours = std::env::vars().filter(|(name, _)| name.starts_with("TRAINSPOT_"));
        let output = command.envs(ours).env(FACTS, &self.facts).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        // A name that matches nothing is a success to the test harness.
        assert!(output.status.success() && said.contains("1 passed"), "{name}:\n{said}");
        // What `say` told there, but for what the test harness says of itself.
        for line in said.lines().filter(|line| line.starts_with(SHOWN)) {
            say(line);
        }
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        self.process.wait().ok();
    }
}
