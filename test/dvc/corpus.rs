//! Generated repositories as people have them, pushed by the real DVC and by us: the same bytes in the
//! remotes; and where DVC refuses, we do before a training.
//!
//! Each has some of: stages of every form of which some ran, outputs whose objects only the remote has,
//! entries of DVC 2, imports, templates, a configuration in `config.local`, a cache of links or in another
//! place, and broken files that git ignores. Some are in a folder of git's repository. Beside them new
//! outputs are tracked, as `DVC_OUTPUTS` does it.

use super::oracle::Oracle;
use crate::support::say;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use trainspot_dvc::{DvcSettings, PathBase, Site, StorePlan, StoredOutputs, store, write};

/// Repositories in a test run; a fifth of `DVC_TREES` in a long one.
const REPOSITORIES: u64 = 10;

const PARAMS: &str = "data: {folder: made/here, name: table}\nsizes: [1, 2]\nkinds: {a: {n: 1}, b: {n: 2}}\n";

/// The stages that a pipeline may have, each with the names under which it is run.
const STAGES: &[(&[&str], &str)] = &[
    (
        &["plain"],
        "  plain:\n    cmd: mkdir -p model && echo plain > model/plain.bin\n    outs:\n    - model/plain.bin\n",
    ),
    (
        &["folder"],
        "  folder:\n    cmd: mkdir -p out/deep && echo a > out/a && echo b > out/deep/b\n    outs:\n    - out\n",
    ),
    (
        &["whole"],
        "  whole:\n    cmd: mkdir -p made/here && echo whole > made/here/x && echo 1 > table.json\n    outs:\n    - ${data.folder}\n    metrics:\n    - ${data.name}.json:\n        cache: false\n",
    ),
    (
        &["parts"],
        "  parts:\n    vars: [{own: parts}]\n    cmd: echo parts > parts-table.bin && echo git > parts.txt\n    outs:\n    - ${own}-${data.name}.bin\n    - ${own}.txt:\n        cache: false\n",
    ),
    (
        &["each@1", "each@2"],
        "  each:\n    foreach: ${sizes}\n    do:\n      cmd: echo each ${item} > each-${item}.bin\n      outs:\n      - each-${item}.bin\n",
    ),
    (
        &["kind@a", "kind@b"],
        "  kind:\n    foreach: ${kinds}\n    do:\n      cmd: echo ${key} ${item.n} > kind-${key}.bin && echo l > kind-${key}.log\n      outs:\n      - kind-${key}.bin\n      - kind-${key}.log:\n          cache: false\n",
    ),
    (
        &["grid@1-x", "grid@2-x"],
        "  grid:\n    matrix:\n      size: ${sizes}\n      kind: [x]\n    cmd: echo ${item.size} ${item.kind} > grid-${key}.bin\n    outs:\n    - grid-${key}.bin\n",
    ),
    (
        &["within"],
        "  within:\n    wdir: sub\n    cmd: echo within > within.bin\n    outs:\n    - within.bin\n",
    ),
    (
        &["private"],
        "  private:\n    cmd: echo private > private.bin\n    outs:\n    - private.bin:\n        push: false\n",
    ),
    (
        &["other"],
        "  other:\n    cmd: echo other > other.bin\n    outs:\n    - other.bin:\n        remote: other\n",
    ),
    (
        &["shown"],
        "  shown:\n    frozen: false\n    desc: with a plot\n    cmd: echo '{\"a\":1}' > m.json && echo 'a,b' > p.csv\n    metrics:\n    - m.json\n    plots:\n    - p.csv:\n        x: a\n",
    ),
];

/// What is wrong with a repository in which no command of DVC works.
const BROKEN: &[(&str, &str)] = &[
    ("broken/dvc.yaml", "stages: [\n"),
    ("broken/dvc.yaml", "stages:\n  s:\n    outs:\n    - x\n"),
    ("broken.dvc", "outs: [\n"),
    ("broken.dvc", "outs:\n- md5: 1\n"),
    (".dvc/config.local", "[core]\n    remot = x\n"),
    (".dvc/config.local", "[odd]\n    x = y\n"),
];

/// What was compared.
#[derive(Debug, Default)]
struct Counts {
    repositories: usize,
    in_folders: usize,
    stages: usize,
    objects: usize,
    only_in_remote: usize,
    of_dvc_2: usize,
    lost: usize,
    tracked: usize,
    refused: usize,
}

#[test]
fn repositories_are_pushed_as_dvc_pushes_them() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    let count =
        std::env::var("DVC_TREES").ok().map_or(REPOSITORIES, |count| count.parse::<u64>().unwrap() / 5);
    let first = std::env::var("DVC_SEED").ok().map_or(0, |seed| seed.parse().unwrap());
    let mut counts = Counts::default();
    for seed in first..first + count {
        let folder = tempfile::tempdir().unwrap();
        Grown::grow(seed, folder.path(), &mut oracle).compare(&mut oracle, &mut counts);
    }
    assert!(counts.refused * 3 < counts.repositories + 3, "{counts:?}");
    say(&format!("seeds {first} to {}: {counts:?}", first + count - 1));
}

/// A generated repository, `theirs/repo` below its folder, with its remotes beside it.
struct Grown {
    seed: u64,
    random: fastrand::Rng,
    folder: PathBuf,
    /// The folder of the DVC repository in that of git.
    within: &'static str,
    /// The stages that ran.
    ran: Vec<&'static str>,
    /// The outputs of stages that are neither here nor in a remote.
    lost: bool,
    broken: bool,
    only_in_remote: usize,
    of_dvc_2: usize,
}

impl Grown {
    fn grow(seed: u64, folder: &Path, oracle: &mut Oracle) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let (folder, within) = (folder.to_owned(), if seed % 4 == 3 { "nlp" } else { "" });
        let mut grown = Self {
            seed,
            random,
            folder,
            within,
            ran: Vec::new(),
            lost: false,
            broken: false,
            only_in_remote: 0,
            of_dvc_2: 0,
        };
        let clone = grown.folder.join("theirs/repo");
        fs::create_dir_all(grown.root().join("sub")).unwrap();
        oracle.ask("init", json!({"root": clone, "remote": "../store", "folder": within})).unwrap();
        grown.configure();
        let ignored = format!("/{within}/.venv/\n/{within}/ignored.dvc\n").replace("//", "/");
        fs::write(clone.join(".gitignore"), ignored).unwrap();
        grown.put(".venv/lib/templates/dvc.yaml", "stages: [\n");
        grown.put("ignored.dvc", "outs: [\n");
        grown.put("params.yaml", PARAMS);
        grown.pipeline(oracle);
        grown.data(oracle);
        grown.scatter(oracle);
        if grown.random.u8(..6) == 0 {
            let (path, text) = *grown.random.choice(BROKEN).unwrap();
            grown.put(path, text);
            grown.broken = true;
        }
        grown
    }

    /// The DVC repository.
    fn root(&self) -> PathBuf {
        self.folder.join("theirs/repo").join(self.within)
    }

    /// A configuration whose paths start beside git's folder.
    fn write_config(&self, name: &str, text: &str) {
        let up = if self.within.is_empty() { "../../" } else { "../../../" };
        self.put(&format!(".dvc/{name}"), &text.replace("../../", up));
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The remotes and the cache, in one of the ways in which people say them.
    fn configure(&mut self) {
        let store = "[core]\n    remote = trainspot\n['remote \"trainspot\"']\n    url = ../../store\n";
        let other = "['remote \"other\"']\n    url = ../../other\n";
        let cache = [
            "",
            "[cache]\n    type = reflink, hardlink, copy\n",
            "[cache]\n    type = symlink\n",
            "[cache]\n    type = \"hardlink,copy\"\n    dir = ../../cache # elsewhere\n",
        ];
        let cache = self.random.choice(cache).unwrap();
        match self.random.u8(..4) {
            0 => {
                self.write_config("config", &format!("{cache}{other}"));
                self.write_config("config.local", store);
            }
            1 => {
                self.write_config("config", &format!("{cache}{}{other}", store.replace("../../store", "../../nobody")));
                self.write_config("config.local", "['remote \"trainspot\"']\n    url = \"\"\"../../store\"\"\"\n");
            }
            2 => self.write_config("config", &format!("# ours\n[core]\n  remote = TRAINSPOT # x\n{cache}[remote \"BASE\"]\n  URL = ../../\n['remote \"trainspot\"']\nurl = remote://base/store\n{other}")),
            _ => self.write_config("config", &format!("{store}{cache}{other}")),
        }
    }

    /// A pipeline of some stages, of which some run.
    fn pipeline(&mut self, oracle: &mut Oracle) {
        let chosen: Vec<_> = STAGES.iter().filter(|_| self.random.bool()).collect();
        if chosen.is_empty() {
            return;
        }
        let text: String = chosen.iter().map(|(_, text)| *text).collect();
        self.put("dvc.yaml", &format!("artifacts:\n  model:\n    path: model/plain.bin\nstages:\n{text}"));
        let names = chosen.iter().flat_map(|(names, _)| names.iter().copied());
        self.ran = names.filter(|_| self.random.u8(..4) > 0).collect();
        if !self.ran.is_empty() {
            oracle
                .ask("repro", json!({"root": self.root(), "targets": self.ran}))
                .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
        }
    }

    /// Data that was added before, some of it by DVC 2, and an import.
    fn data(&mut self, oracle: &mut Oracle) {
        for (path, file) in
            [("data.csv", "data.csv"), ("raw", "raw/deep/x"), ("old.bin", "old.bin"), ("older", "older/y")]
        {
            if self.random.bool() {
                self.put(file, &format!("content of {file}, {}", self.seed));
                oracle.ask("add", json!({"root": self.root(), "targets": [path]})).unwrap();
                if path.starts_with("old") {
                    self.make_old(path);
                }
            }
        }
        if self.random.bool() {
            let md5 = "0123456789abcdef0123456789abcdef";
            self.put("imported.dvc", &format!("frozen: true\ndeps:\n- path: x\n  repo:\n    url: {}\n    rev_lock: abc\nouts:\n- md5: {md5}\n  hash: md5\n  path: imported\n", self.folder.display()));
        }
    }

    /// Rewrites what DVC 3 added as DVC 2 had it: no `hash`, and objects in the cache's root.
    fn make_old(&mut self, path: &str) {
        let pointer = self.root().join(format!("{path}.dvc"));
        let text = fs::read_to_string(&pointer).unwrap();
        fs::write(&pointer, text.replace("  hash: md5\n", "")).unwrap();
        let cache = self.cache();
        let md5 = text.lines().nth(1).unwrap().trim_start_matches("- md5: ").to_owned();
        let mut oids = vec![md5.clone()];
        if trainspot_dvc::Oid::parse(&md5).unwrap().is_dir() {
            let list = fs::read_to_string(cache.join("files/md5").join(&md5[..2]).join(&md5[2..])).unwrap();
            let files: Vec<BTreeMap<String, String>> = serde_json::from_str(&list).unwrap();
            oids.extend(files.into_iter().map(|file| file["md5"].clone()));
        }
        for oid in oids {
            let to = cache.join(&oid[..2]).join(&oid[2..]);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::rename(cache.join("files/md5").join(&oid[..2]).join(&oid[2..]), to).unwrap();
            self.of_dvc_2 += 1;
        }
    }

    fn cache(&self) -> PathBuf {
        let elsewhere = self.folder.join("theirs/cache");
        if elsewhere.exists() { elsewhere } else { self.root().join(".dvc/cache") }
    }

    /// Pushes what there is, and takes some of it from the cache: stages that ran elsewhere. Or from both:
    /// then it is lost.
    fn scatter(&mut self, oracle: &mut Oracle) {
        let (pushed, lost) = (self.random.bool(), self.random.bool());
        if pushed {
            oracle
                .ask("push", json!({"root": self.root()}))
                .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed));
            let remotes = [self.folder.join("theirs/store"), self.folder.join("theirs/other")];
            for key in contents(&self.cache()).into_keys() {
                let there = remotes.iter().any(|remote| remote.join(&key).exists());
                if there && self.random.u8(..3) == 0 {
                    fs::remove_file(self.cache().join(&key)).unwrap();
                    self.only_in_remote += 1;
                }
            }
        } else if lost {
            let lock = fs::read_to_string(self.root().join("dvc.lock")).unwrap_or_default();
            let oids = lock.split("md5: ").skip(1).filter_map(|text| text.split('\n').next());
            let objects = oids.map(|oid| self.cache().join("files/md5").join(&oid[..2]).join(&oid[2..]));
            let private = trainspot_dvc::Md5::of(b"private\n").key();
            let objects: Vec<_> = objects.filter(|path| path.exists() && !path.ends_with(&private)).collect();
            if let Some(object) = self.random.choice(&objects) {
                fs::remove_file(object).unwrap();
                self.lost = true;
            }
        }
    }

    fn compare(mut self, oracle: &mut Oracle, counts: &mut Counts) {
        let seed = self.seed;
        counts.repositories += 1;
        let (theirs, ours) = (self.root(), self.folder.join("ours/repo"));
        let (mut outputs, mut ordered) = (Vec::new(), Vec::new());
        for (path, file) in [("new.bin", "new.bin"), ("sub/new", "sub/new/a b")] {
            if self.random.bool() {
                self.put(file, &format!("new {seed}"));
                outputs.push(path.to_owned());
                ordered.push(Path::new(self.within).join(path).to_str().unwrap().to_owned());
            }
        }
        let copied = Command::new("cp")
            .arg("-a")
            .arg(self.folder.join("theirs"))
            .arg(self.folder.join("ours"))
            .status();
        assert!(copied.unwrap().success());
        let settings = DvcSettings { outputs: ordered, push: true, ..DvcSettings::default() };
        let site = Site { root: &ours, folders: PathBase::Own, in_git: Vec::new(), target: None };
        let settled = StorePlan::read(&settings, &site).and_then(|plan| plan.settle(&|_| Ok(true)));
        let added = if outputs.is_empty() {
            Ok(json!(null))
        } else {
            oracle.ask("add", json!({"root": theirs, "targets": outputs}))
        };
        let pushed = added.and_then(|_| oracle.ask("push", json!({"root": theirs})));
        let plan = match (settled, pushed) {
            (Ok(plan), Ok(_)) => plan,
            (Err(_), Err(_)) => {
                assert!(self.broken, "seed {seed}");
                counts.refused += 1;
                return;
            }
            (Ok(_), Err(error)) => panic!("seed {seed}: DVC refuses, and we know nothing of it: {error}"),
            (Err(error), Ok(_)) => panic!("seed {seed}: we refuse: {}", error.render()),
        };
        assert!(!self.broken, "seed {seed}: nobody saw what is wrong");
        match (run(&ours, &plan), self.lost) {
            (Ok(kept), false) => self.same(&ours, &kept, counts),
            // The one thing that DVC passes over in silence.
            (Err(error), true) => {
                assert!(
                    error.contains("neither in DVC's cache on this machine nor in the remote"),
                    "{error}"
                );
                counts.lost += 1;
            }
            (Ok(_), true) => panic!("seed {seed}: what is lost was not missed"),
            (Err(error), false) => panic!("seed {seed}: {error}"),
        }
        counts.in_folders += usize::from(!self.within.is_empty());
        counts.stages += self.ran.len();
        counts.only_in_remote += self.only_in_remote;
        counts.of_dvc_2 += self.of_dvc_2;
        counts.tracked += outputs.len();
    }

    /// The remotes and the files to commit are the same.
    fn same(&self, ours: &Path, kept: &StoredOutputs, counts: &mut Counts) {
        let seed = self.seed;
        write(ours, &kept.changes).unwrap();
        for remote in ["store", "other"] {
            let theirs = contents(&self.folder.join("theirs").join(remote));
            let mine = contents(&self.folder.join("ours").join(remote));
            assert_eq!(
                mine.keys().collect::<Vec<_>>(),
                theirs.keys().collect::<Vec<_>>(),
                "seed {seed}: {remote}"
            );
            assert!(mine == theirs, "seed {seed}: {remote} has other bytes");
            counts.objects += mine.len();
        }
        for change in &kept.changes {
            let read = |root: &Path| fs::read_to_string(root.join(&change.path)).unwrap_or_default();
            assert_eq!(read(ours), read(&self.folder.join("theirs/repo")), "seed {seed}: {}", change.path);
        }
    }
}

fn run(root: &Path, plan: &StorePlan) -> Result<StoredOutputs, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(store(root, plan.request()));
    outcome.and_then(|outcome| plan.accept(&outcome)).map_err(|error| error.render())
}

/// The files below a folder, by relative path.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files =
        walkdir::WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    let read = |entry: walkdir::DirEntry| {
        let path = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        (path, fs::read(entry.path()).unwrap())
    };
    files.map(read).filter(|(path, _)| !path.starts_with("runs/")).collect()
}
