//! A step of a pipeline, on whose behalf the whole pipe runs on the rig.

use super::lab::Lab;
use crate::support::{Access, Run, Scene};
use fake_bitbucket::Options;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Read};
use std::process::Child;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// See there.
const TRAINING: &str = include_str!("steps.py");

/// The pipeline of all steps.
pub(crate) const PIPELINE: &str = "{11111111-1111-1111-1111-111111111111}";

/// No line takes as long, however busy the host is.
const LONGEST_LINE_WAIT: Duration = Duration::from_mins(10);

/// How long a run takes that trains for no time at all.
pub(crate) async fn short_run(lab: &Lab) -> Duration {
    let step = Step::new(lab, 1, 0.0);
    let start = Instant::now();
    step.run().await.expect(0, "a short run").await;
    start.elapsed()
}

/// What a training waits at until the test is done with its machine, however long a busy host takes for that.
pub(crate) struct Gate(TcpListener);

impl Gate {
    /// A gate at the pipe's own address, which machines reach.
    pub(crate) async fn new(lab: &Lab) -> Self {
        Self(TcpListener::bind((lab.address(), 0)).await.unwrap())
    }

    /// The shell command that waits at the gate.
    pub(crate) fn command(&self) -> String {
        let address = self.0.local_addr().unwrap();
        let (ip, port) = (address.ip(), address.port());
        format!("python3 -c \"import socket; socket.create_connection(('{ip}', {port})).recv(1)\"")
    }

    /// Lets the training that waits there go on. Fails if none does.
    pub(crate) async fn open(self) {
        let waiting = tokio::time::timeout(LONGEST_LINE_WAIT, self.0.accept()).await;
        drop(waiting.expect("no training waits").unwrap());
    }
}

/// A step that trains on the lab's machines.
pub(crate) struct Step {
    pub(crate) scene: Scene,
    id: String,
    steps: u32,
}

impl Step {
    /// A training of this many steps of so many seconds each, with checkpoints.
    pub(crate) fn new(lab: &Lab, steps: u32, seconds: f64) -> Self {
        Self::with(lab, steps, seconds, Options::default())
    }

    /// The same, with another kind of Bitbucket.
    pub(crate) fn with(lab: &Lab, steps: u32, seconds: f64, options: Options) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("22222222-2222-2222-2222-{:012}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut scene = Scene::with(Access::Token, &[("steps.py", TRAINING)], options);
        scene.set("CLOUD", "aws").set("BITBUCKET_STEP_UUID", &format!("{{{id}}}"));
        scene.set("BITBUCKET_PIPELINE_UUID", PIPELINE);
        for name in ["ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "DEFAULT_REGION"] {
            let name = format!("AWS_{name}");
            scene.set(&name, lab.variable(&name));
        }
        scene.set("PUBLIC_IP_URL", lab.variable("PUBLIC_IP_URL"));
        scene.set("INSTANCE_TYPE_COUNT", "2").set("INSTANCE_TYPE_0", "m5.large");
        scene.set("INSTANCE_TYPE_1", "c5.large").set("CAPACITY_WAIT", "20s");
        scene.set("TRAIN_COMMAND", &format!("python3 steps.py {steps} {seconds}"));
        scene.set("CHECKPOINTS", "state").set("CHECKPOINT_INTERVAL", "1s");
        scene.set("OUTPUTS", "model/**").set("METRICS", "model/metrics.json");
        scene.set("MAX_RUNTIME", "10m").set("ORPHAN_GRACE", "1m").set("BOOT_TIMEOUT", "2m");
        Self { scene, id, steps }
    }

    /// Its id, as Bitbucket writes it.
    pub(crate) fn uuid(&self) -> String {
        format!("{{{}}}", self.id)
    }

    /// The machines of this step that run.
    pub(crate) async fn machines(&self, lab: &Lab) -> Vec<String> {
        let mut alive = self.own(lab, "instances").await;
        alive.retain(|machine| machine["alive"] == true);
        alive.iter().map(|machine| machine["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether EC2 says of each machine of this step that it has ended: somewhat after nothing runs there.
    pub(crate) async fn all_terminated(&self, lab: &Lab) -> bool {
        self.own(lab, "instances").await.iter().all(|machine| machine["state"] == "terminated")
    }

    /// What is there of this step, of any type.
    pub(crate) async fn leftovers(&self, lab: &Lab) -> Vec<Value> {
        self.own(lab, "leftovers").await
    }

    /// What the lab lists at `path` of this step.
    async fn own(&self, lab: &Lab, path: &str) -> Vec<Value> {
        let mut listed = lab.get(path).await.as_array().unwrap().clone();
        listed.retain(|thing| thing["tags"]["trainspot:step"] == self.id);
        listed
    }

    /// Waits until no machine of this step runs. Fails if one does after this time.
    pub(crate) async fn assert_alone_within(&self, lab: &Lab, time: Duration, when: &str) -> Duration {
        let start = Instant::now();
        loop {
            let alive = self.machines(lab).await;
            if alive.is_empty() {
                return start.elapsed();
            }
            assert!(start.elapsed() < time, "{when}: {alive:?} are alive after {time:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What an uninterrupted training makes, here and without the pipe.
    pub(crate) fn model(&self) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let mut python = std::process::Command::new("python3");
        python.args(["-c", TRAINING, &self.steps.to_string(), "0"]).current_dir(folder.path());
        let output = python.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(folder.path().join("model/m.bin")).unwrap()
    }

    /// Fails unless the model is committed once, bit for bit, with one pull request.
    pub(crate) fn assert_published(&self, when: &str) {
        let branch = self.scene.branch();
        assert_eq!(self.scene.subjects(&branch).len(), 1, "{when}");
        assert!(
            self.scene.remote.file(&branch, "model/m.bin") == Some(self.model()),
            "{when}: another model"
        );
        assert_eq!(self.scene.bitbucket.pull_requests().len(), 1, "{when}");
    }

    /// Starts the pipe.
    pub(crate) fn start(&self) -> Pipe {
        let mut child = self.scene.start();
        let (sender, lines) = unbounded_channel();
        let log: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
        for stream in [log, Box::new(child.stdout.take().unwrap())] {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    sender.send((Instant::now(), line)).ok();
                }
            });
        }
        Pipe { child, start: Instant::now(), lines, said: Vec::new() }
    }

    /// Runs the pipe to its end.
    pub(crate) async fn run(&self) -> Pipe {
        let mut pipe = self.start();
        pipe.end().await;
        pipe
    }
}

/// A pipe that runs, and what it says, as it comes.
pub(crate) struct Pipe {
    child: Child,
    start: Instant,
    lines: UnboundedReceiver<(Instant, String)>,
    said: Vec<(Instant, String)>,
}

impl Pipe {
    /// Waits for a line that has these words, and says when it came. Fails if none comes.
    pub(crate) async fn line(&mut self, words: &str) -> Instant {
        loop {
            let next = tokio::time::timeout(LONGEST_LINE_WAIT, self.lines.recv()).await.ok().flatten();
            let Some(line) = next else { panic!("no line with '{words}':\n{}", self.text()) };
            self.said.push(line.clone());
            if line.1.contains(words) {
                return line.0;
            }
        }
    }

    /// Waits for the end, and gives the exit code.
    pub(crate) async fn end(&mut self) -> Option<i32> {
        while let Some(line) = self.lines.recv().await {
            self.said.push(line);
        }
        self.child.wait().unwrap().code()
    }

    /// Waits for the end. Fails unless it is this one.
    pub(crate) async fn expect(&mut self, code: i32, when: &str) {
        let found = self.end().await;
        assert_eq!(found, Some(code), "{when}:\n{}", self.text());
    }

    /// When it was started.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// When each line with these words came.
    pub(crate) fn times(&self, words: &str) -> Vec<Instant> {
        self.said.iter().filter(|(_, line)| line.contains(words)).map(|(at, _)| *at).collect()
    }

    /// All that it said so far, with seconds.
    pub(crate) fn text(&self) -> String {
        let line =
            |(at, line): &(Instant, String)| format!("{:7.2} {line}", (*at - self.start).as_secs_f64());
        Run::plain(&self.said.iter().map(line).collect::<Vec<_>>().join("\n"))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
