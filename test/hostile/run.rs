//! A whole run of the pipe on a machine with a planned agent, and what holds of every such run.

use crate::mutation::{EVIL, FORGED};
use crate::plan::{self, Plan};
use crate::support::{Access, Run, Scene, is_late, memory_kib};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use trainspot_transfer::Pattern;

/// The most memory that a pipe may take, whatever a machine says: 64 MiB with its program's own pages, of
/// which a release build has up to 14 MiB. They are not counted here, as this program has three times as
/// many.
const PEAK_LIMIT_KIB: u64 = 50 << 10;
/// No run of these takes longer on a machine that has nothing else to do.
const LONGEST_RUN: Duration = Duration::from_mins(1);
const PEAK: &str = "peak";
const PIPELINE: &str = "stages:\n  train:\n    cmd: x\n    outs:\n    - model/kept.bin\n";
const CONFIG: &str = "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../store\n";
/// What the runs ask their machines for.
const ASKED: [&str; 4] = ["model/m.bin", "model/*.json", "state", "data/d.bin"];
/// What the pipe itself writes of DVC's.
const WRITTEN: [&str; 4] = ["data/d.bin.dvc", "data/.gitignore", ".dvc/{config,.gitignore}", ".dvcignore"];

/// The pipe itself, in a process of this program. Leaves the most memory that it took in a file of `folder`.
pub(crate) fn pipe(folder: &Path) -> ExitCode {
    let code = trainspot::run(&[], std::env::vars_os());
    let kib = |figure| memory_kib("self", figure).unwrap();
    let peak = kib("VmHWM").saturating_sub(kib("RssFile"));
    fs::write(folder.join(PEAK), peak.to_string()).unwrap();
    ExitCode::from(code)
}

/// What a run came to.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    /// All that was printed.
    pub(crate) said: String,
    pub(crate) peak_kib: u64,
    /// What the agent did that was planned.
    pub(crate) done: Vec<String>,
}

/// A repository whose training meets a planned agent.
pub(crate) struct Hostile {
    pub(crate) scene: Scene,
    before: BTreeMap<PathBuf, Vec<u8>>,
}

impl Hostile {
    /// A training that makes a model, metrics and a checkpoint, and then ends with this exit code.
    pub(crate) fn new(plan: &Plan, code: u8) -> Self {
        let files = [
            ("deploy.sh", "echo deployed\n"),
            ("bitbucket-pipelines.yml", "pipelines: {}\n"),
            ("dvc.yaml", PIPELINE),
            (".dvc/config", CONFIG),
        ];
        let mut scene = Scene::new(Access::Token, &files);
        let folder = scene.folder.path().join("plan");
        plan.write(&folder);
        let train = format!(
            "mkdir -p model data; echo fitting; echo 1 > state; printf weights > model/m.bin; \
             printf data > data/d.bin; echo '{{\"accuracy\": 0.9}}' > model/metrics.json; sleep 3; exit {code}"
        );
        scene.set("TRAIN_COMMAND", &train).set("OUTPUTS", "model/m.bin, model/*.json");
        scene.set("CHECKPOINTS", "state").set("CHECKPOINT_INTERVAL", "1s").set("MAX_RESTARTS", "0");
        scene.set("ORPHAN_GRACE", "30s").set("MAX_RUNTIME", "5m");
        scene.set(plan::VARIABLE, folder.to_str().unwrap());
        let before = tree(&scene.clone());
        Self { scene, before }
    }

    /// Has DVC keep an output.
    pub(crate) fn with_dvc(mut self) -> Self {
        self.scene.set("DVC_OUTPUTS", "data/d.bin");
        self
    }

    /// Runs the pipe, and fails unless what holds of every run holds of this one. `when` says which it is.
    pub(crate) fn run(&self, when: &str) -> Outcome {
        let folder = self.scene.folder.path().join("plan");
        let (said, code) = self.run_to_end(&folder, when);
        assert!((0..=6).contains(&code), "{when}: exit code {code}\n{said}");
        assert!(!said.contains("panicked"), "{when}: {said}");
        let forged = said.lines().find(|line| line.trim_start_matches("✔ ").starts_with(FORGED));
        assert_eq!(forged, None, "{when}: a line of the machine's at the margin\n{said}");
        let peak_kib = fs::read_to_string(folder.join(PEAK)).unwrap().parse().unwrap();
        let done = plan::notes_in(&folder, "done");
        assert!(peak_kib < PEAK_LIMIT_KIB, "{when}: {peak_kib} KiB of memory, {done:?}");
        self.assert_nothing_but_what_was_asked(when);
        Outcome { code, said, peak_kib, done }
    }

    fn run_to_end(&self, folder: &Path, when: &str) -> (String, i32) {
        let planned = self.scene.command();
        let variables = planned.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env_clear().envs(variables).current_dir(self.scene.clone());
        let words = folder.join("said");
        let file = fs::File::create(&words).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        let (mut child, start) = (command.spawn().unwrap(), Instant::now());
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if is_late(start, LONGEST_RUN) => {
                    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
                    child.wait().unwrap();
                    let said = fs::read_to_string(&words).unwrap();
                    panic!("{when}: no end after {:?}\n{said}", start.elapsed());
                }
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        let said = Run::plain(&String::from_utf8_lossy(&fs::read(&words).unwrap()));
        let code = status.code();
        (said.clone(), code.unwrap_or_else(|| panic!("{when}: {status}\n{said}")))
    }

    fn assert_nothing_but_what_was_asked(&self, when: &str) {
        let matching = |patterns: &[&str], path: &Path| {
            patterns.iter().any(|pattern| Pattern::parse(pattern).unwrap().matches(path))
        };
        let is_asked = |path: &Path| matching(&ASKED, path) || matching(&WRITTEN, path);
        let after = tree(&self.scene.clone());
        let paths: BTreeSet<_> = self.before.keys().chain(after.keys()).collect();
        let changed = paths.into_iter().filter(|path| self.before.get(*path) != after.get(*path));
        let (known, other): (Vec<_>, Vec<_>) = changed.partition(|path| is_asked(path));
        assert!(other.is_empty(), "{when}: {other:?} changed in the clone");
        let mut written = known.iter().filter(|path| matching(&WRITTEN, path));
        let evil = written.find(|path| after.get(**path).is_some_and(|text| text == EVIL.as_bytes()));
        assert_eq!(evil, None, "{when}: written by the machine");
        for place in [self.scene.folder.path().join("evil"), PathBuf::from("/tmp/trainspot-evil")] {
            assert!(!place.exists(), "{when}: {} was written", place.display());
        }
        let branches = self.scene.remote.git(&["for-each-ref", "--format=%(refname:short)", "refs/heads"]);
        for branch in branches.lines().filter(|branch| *branch != "main") {
            let committed = self.scene.remote.git(&["diff", "--name-only", "main", branch]);
            let other: Vec<_> = committed.lines().filter(|path| !is_asked(Path::new(path))).collect();
            assert!(other.is_empty(), "{when}: {other:?} committed");
        }
    }
}

/// The files below a folder, git's own included, and what is in them.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let items = walkdir::WalkDir::new(root).into_iter().map(Result::unwrap);
    let read = |item: walkdir::DirEntry| {
        let content = match item.path().read_link() {
            Ok(target) => [b"-> ", target.as_os_str().as_encoded_bytes()].concat(),
            Err(_) => fs::read(item.path()).unwrap(),
        };
        (item.path().strip_prefix(root).unwrap().to_owned(), content)
    };
    items.filter(|item| !item.file_type().is_dir()).map(read).collect()
}
