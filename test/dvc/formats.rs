//! Pointers, `.gitignore` and directories' lists beside those that the real DVC writes, over generated trees.

use super::edits::edit;
use super::oracle::Oracle;
use super::trees::Tree;
use crate::support::say;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use trainspot_dvc::{Object, ObjectContent, Remotes, Tracked, Tracking, foresee, track, write};

/// Trees in a test run; `DVC_TREES` says how many in a long one.
const TREES: u64 = 25;

/// What was compared.
#[derive(Debug, Default)]
struct Counts {
    trees: usize,
    /// Those of the trees in a repository that is a folder of the clone.
    subdirs: usize,
    pointers: usize,
    ignores: usize,
    lists: usize,
    updates: usize,
    pulled: usize,
    refused: usize,
}

#[test]
fn everything_is_written_as_dvc_writes_it() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    let trees = std::env::var("DVC_TREES").ok().map_or(TREES, |count| count.parse().unwrap());
    let first = std::env::var("DVC_SEED").ok().map_or(0, |seed| seed.parse().unwrap());
    let mut counts = Counts::default();
    let template = tempfile::tempdir().unwrap();
    for (folder, remote) in [("", "../remote"), ("sub", "../../remote")] {
        let root = template.path().join(format!("of {folder}"));
        oracle.ask("init", json!({"root": root, "remote": remote, "folder": folder})).unwrap();
    }
    for seed in first..first + trees {
        let folder = if seed % 3 == 1 { "sub" } else { "" };
        one(seed, &mut Lab::new(template.path(), folder, &mut oracle), &mut counts);
    }
    // A comparison of refusals would prove little.
    assert!(counts.refused * 4 < counts.trees, "{counts:?}");
    say(&format!("beside DVC 3.67.1: {counts:?}"));
}

/// The folders of a comparison, and the DVC to compare with.
struct Lab<'a> {
    folder: tempfile::TempDir,
    /// A clone with a repository of DVC's without data, whose remote is the folder `remote` beside the clone.
    template: PathBuf,
    /// The repository's folder in the clone.
    within: &'static str,
    oracle: &'a mut Oracle,
}

impl<'a> Lab<'a> {
    fn new(templates: &Path, within: &'static str, oracle: &'a mut Oracle) -> Self {
        let template = templates.join(format!("of {within}"));
        Self { folder: tempfile::tempdir().unwrap(), template, within, oracle }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A new clone's DVC repository.
    fn repository(&self, name: &str) -> PathBuf {
        copy(&self.template, &self.at(name));
        self.within(name)
    }

    /// The DVC repository in a clone.
    fn within(&self, name: &str) -> PathBuf {
        self.at(name).join(self.within)
    }

    /// A copy of a clone; its DVC repository.
    fn copy(&self, from: &str, to: &str) -> PathBuf {
        copy(&self.at(from), &self.at(to));
        self.within(to)
    }

    fn with_tracking<T>(
        &self,
        clone: &str,
        targets: &[String],
        work: impl Fn(&Tracking<'_>) -> trainspot_base::error::Result<T>,
    ) -> Result<T, String> {
        let remotes = Remotes::load(&self.within(clone), None, BTreeMap::new());
        let (root, remotes) = (self.at(clone), remotes.map_err(|error| error.render())?);
        let folder = Path::new(self.within);
        let in_git = |_: &Path| None;
        let tracking = Tracking { root: &root, folder, outputs: targets, in_git: &in_git, remotes: &remotes };
        work(&tracking).map_err(|error| error.render())
    }

    /// What we would write of the outputs in a clone.
    fn track(&self, clone: &str, targets: &[String]) -> Result<Tracked, String> {
        self.with_tracking(clone, targets, track)
    }

    /// What is refused before there are outputs.
    fn foresee(&self, clone: &str, targets: &[String]) -> Result<(), String> {
        self.with_tracking(clone, targets, foresee).map(drop)
    }
}

fn one(seed: u64, lab: &mut Lab<'_>, counts: &mut Counts) {
    let (theirs, remote) = (lab.repository("theirs"), lab.at("remote"));
    let mut tree = Tree::grow(seed, &theirs);
    if !lab.within.is_empty() {
        tree.rules_above(&lab.at("theirs"));
    }
    let ours = lab.copy("theirs", "ours");
    counts.trees += 1;
    counts.subdirs += usize::from(!lab.within.is_empty());

    // DVC takes `a: b/c` for an address, and puts its pointer elsewhere.
    let targets: Vec<String> = tree.targets.iter().map(|target| format!("./{target}")).collect();
    let added = lab.oracle.ask("add", json!({"root": theirs, "targets": targets}));
    let tracked = lab.track("ours", &tree.targets);
    foreseen(seed, lab, &tree.targets, tracked.as_ref().err());
    let (tracked, refused) = match (tracked, &added) {
        (Ok(tracked), Ok(_)) => (tracked, false),
        (Err(_), Err(_)) => (Tracked::default(), true),
        (Ok(_), Err(error)) => panic!("seed {seed}: DVC refuses {:?}: {error}", tree.targets),
        (Err(error), Ok(_)) => panic!("seed {seed}: we refuse {:?}: {error}", tree.targets),
    };
    if refused {
        counts.refused += 1;
        return;
    }
    write(&lab.at("ours"), &tracked.changes).unwrap();
    compare(seed, &theirs, &ours, &tracked, counts);
    store(&tracked, &remote);
    pull(seed, lab, "ours", counts);

    // The same edits and changes on both sides, beginning with what DVC wrote.
    for pointer in files(&theirs, &|path| path.extension().is_some_and(|end| end == "dvc")) {
        let edited = edit(&mut tree.random, &fs::read_to_string(theirs.join(&pointer)).unwrap());
        fs::write(theirs.join(&pointer), edited).unwrap();
    }
    tree.change(&theirs);
    let again = lab.copy("theirs", "again");
    let before = pointers(&theirs);
    if let Err(error) = lab.oracle.ask("add", json!({"root": theirs, "targets": targets})) {
        assert!(lab.track("again", &tree.targets).is_err(), "seed {seed}: DVC refuses to update: {error}");
        counts.refused += 1;
        return;
    }
    let tracked =
        lab.track("again", &tree.targets).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{before}"));
    write(&lab.at("again"), &tracked.changes).unwrap();
    assert_eq!(pointers(&again), pointers(&theirs), "seed {seed}, before:\n{before}");
    compare(seed, &theirs, &again, &tracked, &mut Counts::default());
    counts.updates += tracked.pointers.len();
    store(&tracked, &remote);
    pull(seed, lab, "again", counts);
}

/// What the outputs' content does not decide is told without it: the same is refused where they are missing.
fn foreseen(seed: u64, lab: &Lab<'_>, targets: &[String], refused: Option<&String>) {
    // The generated data is refused for nothing else.
    const CONTENT: [&str; 4] =
        ["leads nowhere", "is not UTF-8", "DVC allows no .dvcignore", "is ignored by DVC"];
    let bare = lab.copy("ours", "bare");
    for target in targets {
        let path = bare.join(target);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    match (lab.foresee("bare", targets), refused) {
        (Ok(()), None) => {}
        (Ok(()), Some(error)) => {
            assert!(CONTENT.iter().any(|words| error.contains(words)), "seed {seed}: not foreseen: {error}");
        }
        (Err(error), None) => panic!("seed {seed}: foreseen of {targets:?}, but not so: {error}"),
        (Err(error), Some(after)) => assert_eq!(&error, after, "seed {seed}"),
    }
}

/// What DVC and we wrote, and the objects that DVC put into its cache and we would send.
fn compare(seed: u64, theirs: &Path, ours: &Path, tracked: &Tracked, counts: &mut Counts) {
    let is_written = |path: &Path| {
        path.extension().is_some_and(|end| end == "dvc")
            || path.file_name().is_some_and(|name| name == ".gitignore")
    };
    let (mine, wanted) = (files(ours, &is_written), files(theirs, &is_written));
    assert_eq!(mine, wanted, "seed {seed}");
    for path in wanted {
        let read = |root: &Path| String::from_utf8_lossy(&fs::read(root.join(&path)).unwrap()).into_owned();
        assert_eq!(read(ours), read(theirs), "seed {seed}: {}", path.display());
        if path.extension().is_some() { counts.pointers += 1 } else { counts.ignores += 1 }
    }
    for object in tracked.uploads.iter().flat_map(|upload| &upload.objects) {
        let cached = theirs.join(".dvc/cache").join(object.oid.key());
        assert!(cached.exists(), "seed {seed}: DVC has no {}", object.oid);
        if object.oid.is_dir() {
            assert_eq!(bytes(object), fs::read(cached).unwrap(), "seed {seed}");
            counts.lists += 1;
        }
    }
}

pub(super) fn bytes(object: &Object) -> Vec<u8> {
    match &object.content {
        ObjectContent::File(path) | ObjectContent::Hashed(path, _) | ObjectContent::Drafted(path, ..) => {
            fs::read(path).unwrap()
        }
        ObjectContent::Bytes(bytes) => bytes.to_vec(),
        ObjectContent::Elsewhere { output, .. } => panic!("{output} is not here"),
    }
}

/// A remote's simplest form.
fn store(tracked: &Tracked, remote: &Path) {
    for object in tracked.uploads.iter().flat_map(|upload| &upload.objects) {
        let path = remote.join(object.oid.key());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !path.exists() {
            fs::write(&path, bytes(object)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
        }
    }
}

/// What a teammate gets, who has what git has.
fn pull(seed: u64, lab: &mut Lab<'_>, from: &str, counts: &mut Counts) {
    let clone = lab.repository(&format!("clone of {from}"));
    let from = &lab.within(from);
    let wanted: BTreeSet<PathBuf> = pointers_of(from).into_iter().map(|(_, out)| out).collect();
    let inside = |path: &Path| wanted.iter().any(|out| path.starts_with(out));
    for path in files(from, &|path| !inside(path) && !path.starts_with(".dvc") && !path.starts_with(".git")) {
        fs::create_dir_all(clone.join(&path).parent().unwrap()).unwrap();
        fs::copy(from.join(&path), clone.join(&path)).unwrap();
    }
    lab.oracle
        .ask("pull", json!({"root": clone}))
        .unwrap_or_else(|error| panic!("seed {seed}: dvc pull: {error}"));
    let status = lab.oracle.ask("status", json!({"root": clone})).unwrap();
    assert_eq!(status, json!([{}, {}]), "seed {seed}");
    for path in files(&clone, &inside) {
        assert_eq!(
            fs::read(clone.join(&path)).unwrap(),
            fs::read(from.join(&path)).unwrap(),
            "seed {seed}: {}",
            path.display()
        );
        counts.pulled += 1;
    }
}

fn pointers_of(root: &Path) -> Vec<(PathBuf, PathBuf)> {
    let all = files(root, &|path| path.extension().is_some_and(|end| end == "dvc"));
    all.into_iter().map(|path| (path.clone(), path.with_extension(""))).collect()
}

fn pointers(root: &Path) -> String {
    let text = |(path, _): (PathBuf, PathBuf)| {
        format!("--- {}\n{}", path.display(), fs::read_to_string(root.join(&path)).unwrap())
    };
    pointers_of(root).into_iter().map(text).collect()
}

/// The files below a folder, outside of git's and DVC's own, that `wanted` takes by relative path.
fn files(root: &Path, wanted: &dyn Fn(&Path) -> bool) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut left = vec![PathBuf::new()];
    while let Some(folder) = left.pop() {
        for entry in root.join(&folder).read_dir().unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if path != Path::new(".git") && path != Path::new(".dvc") {
                    left.push(path);
                }
            } else if wanted(&path) {
                found.insert(path);
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}
