//! Pairs of publications at the same time, from clones of one commit: nothing of either is lost, whatever
//! comes first.

use super::*;
use crate::support::say;
use fake_bitbucket::Fault;
use std::{collections::BTreeSet, fmt::Write as _, time::Duration};
use trainspot_base::error::Kind;

/// One thing that a publication changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// A file with this content.
    File(String, String),
    /// A line of an ignore file.
    Line(String, String),
    /// A stage of `dvc.lock` or `dvc.yaml`, with its text.
    Stage(&'static str, String, String),
}

const STAGES: [&str; 3] = ["prepare", "train", "test"];

fn base() -> Vec<(&'static str, Vec<u8>)> {
    let stages = |value: &str| STAGES.map(|name| stage(name, value)).concat();
    vec![
        ("index.json", b"{\"a\": 0, \"b\": 0}\n".to_vec()),
        ("model/shared.bin", b"base".to_vec()),
        (".gitignore", b"*.log\n# data\n/data\n".to_vec()),
        ("dvc.lock", format!("schema: '2.0'\nstages:\n{}", stages("base")).into_bytes()),
        ("dvc.yaml", format!("# pipeline\nvars:\n- params.yaml\nstages:\n{}", stages("base")).into_bytes()),
    ]
}

fn stage(name: &str, value: &str) -> String {
    format!(
        "  {name}:\n    cmd: python {name}.py {value}\n    outs:\n    - path: {name}.bin\n      size: 3\n"
    )
}

impl Item {
    fn random(who: &str, number: usize, random: &mut fastrand::Rng) -> Self {
        let text = format!("{who} {}", random.u32(..));
        let ignores = [".gitignore", "model/.gitignore"][random.usize(0..2)].to_owned();
        let staged = ["dvc.lock", "dvc.yaml"][random.usize(0..2)];
        match random.u8(0..14) {
            0 | 12 => Self::File("model/shared.bin".into(), text),
            1 | 13 => Self::File("index.json".into(), format!("{{\"{who}\": {}}}\n", random.u32(..))),
            2 => Self::File("new.json".into(), text),
            3 => Self::Line(ignores, "/the-same.bin".into()),
            4 | 5 => Self::Line(ignores, format!("/{who}-{number}.bin")),
            6 => {
                let name = STAGES[random.usize(0..3)];
                Self::Stage(staged, name.into(), stage(name, &text))
            }
            7..=9 => {
                let name = format!("{who}@{number}");
                Self::Stage(staged, name.clone(), stage(&name, &text))
            }
            _ => Self::File(format!("model/{who}-{number}.bin"), text),
        }
    }

    fn path(&self) -> &str {
        match self {
            Self::File(path, _) | Self::Line(path, _) => path,
            Self::Stage(path, ..) => path,
        }
    }

    /// What cannot be had together with another value of it.
    fn place(&self) -> String {
        match self {
            Self::File(path, _) => path.clone(),
            Self::Line(path, line) => format!("{path} {line}"),
            Self::Stage(path, name, _) => format!("{path} {name}"),
        }
    }

    /// Makes the change in a clone, as a training does that knows of no other.
    fn make(&self, clone: &Path) {
        let path = clone.join(self.path());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut text = fs::read_to_string(&path).unwrap_or_default();
        match self {
            Self::File(_, content) => text.clone_from(content),
            Self::Line(_, line) => writeln!(text, "{line}").unwrap(),
            Self::Stage(_, name, stage_text) => {
                let old = stage(name, "base");
                if text.contains(&old) {
                    text = text.replace(&old, stage_text);
                } else {
                    text.push_str(stage_text);
                }
            }
        }
        fs::write(path, text).unwrap();
    }

    fn is_in(&self, world: &World, branch: &str) -> bool {
        let Some(bytes) = world.bare.file(branch, self.path()) else { return false };
        let text = String::from_utf8(bytes).unwrap();
        match self {
            Self::File(_, content) => text == *content,
            Self::Line(_, line) => text.lines().any(|own| own == line),
            Self::Stage(_, _, stage_text) => text.contains(stage_text),
        }
    }
}

struct Publisher {
    clone: PathBuf,
    items: Vec<Item>,
    publication: Publication,
}

impl Publisher {
    fn new(world: &World, who: &str, destination: Destination, random: &mut fastrand::Rng) -> Self {
        let clone = world.directory.path().join(who);
        world.fake.clone_as_pipelines("main", &clone);
        let mut places = BTreeSet::new();
        let count = random.usize(1..5);
        let mut items: Vec<_> = (0..count).map(|number| Item::random(who, number, random)).collect();
        items.retain(|item| places.insert(item.place()));
        for item in &items {
            item.make(&clone);
        }
        let paths: Vec<_> = items.iter().map(Item::path).collect();
        let publication = publication_of(who, destination, &paths);
        Self { clone, items, publication }
    }

    async fn publish(&self, remote: &GitRemote, wait: Duration) -> Result<Published> {
        tokio::time::sleep(wait).await;
        Checkout::open(&self.clone).unwrap().publish(remote, &self.publication).await
    }

    /// Whether the two cannot both be on one branch.
    fn conflicts_with(&self, other: &Self) -> bool {
        let clash = |own: &Item| other.items.iter().any(|item| item.place() == own.place() && item != own);
        self.publication.destination_branch() == other.publication.destination_branch()
            && self.items.iter().any(clash)
    }

    /// The branch that has its work, which is checked to be there as a whole.
    fn judge(&self, world: &World, result: &Result<Published>) -> String {
        let (branch, commit) = match result {
            Ok(Published::Pushed { branch, commit, .. }) => (branch.clone(), Some(commit.clone())),
            Ok(Published::Unchanged { .. }) => (self.publication.destination_branch().to_owned(), None),
            Err(error) => {
                assert_eq!(error.exit_kind(), Kind::Publication, "{}", error.render());
                let text = error.render();
                let after = |before: &str| {
                    text.split(before).nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
                };
                assert!(text.contains("cannot push to "), "{text}");
                assert_ne!(after(" branch "), self.publication.destination_branch());
                (after(" branch "), Some(after("in commit ")))
            }
        };
        for item in &self.items {
            assert!(item.is_in(world, &branch), "{item:?} is not on {branch}");
        }
        if let Some(commit) = commit {
            world.bare.git(&["merge-base", "--is-ancestor", &commit, &branch]);
        }
        branch
    }
}

trait DestinationBranch {
    fn destination_branch(&self) -> &str;
}

impl DestinationBranch for Publication {
    fn destination_branch(&self) -> &str {
        match &self.destination {
            Destination::PullRequest { branch, .. } | Destination::Push { branch, .. } => branch,
        }
    }
}

/// What the branch had before must still be there, but for what the publications themselves changed.
fn assert_base_is_there(world: &World, branch: &str, changed: &BTreeSet<String>) {
    for name in STAGES {
        for path in ["dvc.lock", "dvc.yaml"] {
            let item = Item::Stage(path, name.into(), stage(name, "base"));
            assert!(
                changed.contains(&item.place()) || item.is_in(world, branch),
                "{item:?} was lost on {branch}"
            );
        }
    }
    for line in ["*.log", "# data", "/data"] {
        assert!(
            Item::Line(".gitignore".into(), line.into()).is_in(world, branch),
            "{line} was lost on {branch}"
        );
    }
}

#[derive(Debug, Default)]
struct Counts {
    pairs: usize,
    in_turn: usize,
    together: usize,
    aside: usize,
    items: usize,
    pushes: usize,
}

async fn pair(random: &mut fastrand::Rng, counts: &mut Counts) {
    let base = base();
    let files: Vec<_> = base.iter().map(|(path, text)| (*path, text.as_slice())).collect();
    let world = World::with_files(&files);
    let ours = if random.bool() { pull_request() } else { push() };
    let theirs = match random.u8(0..8) {
        0 => pull_request(),
        1 => push(),
        _ => ours.clone(),
    };
    let first = Publisher::new(&world, "ada", ours, random);
    let mut second = Publisher::new(&world, "bob", theirs, random);
    let remote = if random.u8(0..3) > 0 {
        world.by_token()
    } else {
        GitRemote { url: world.bare.path().display().to_string(), access: Access::Anonymous }
    };
    let notes = random.u8(0..4) == 0;
    if notes {
        world.bare.commit(first.publication.destination_branch(), "by hand", &[("notes.md", b"n")]);
    }
    let before = world.fake.count("POST", "git-receive-pack");
    let in_turn = random.u8(0..4) == 0;
    let results = if in_turn {
        counts.in_turn += 1;
        let one = first.publish(&remote, Duration::ZERO).await;
        if random.bool() {
            second.publication.seen = remote.check().await.unwrap();
        }
        (one, second.publish(&remote, Duration::ZERO).await)
    } else {
        for _ in 0..random.u8(0..3) {
            let delay = Duration::from_millis(random.u64(0..150));
            world.fake.next(Fault::on("POST", "git-receive-pack").delay(delay));
        }
        let waits = [(); 2].map(|()| Duration::from_millis(random.u64(0..60)));
        tokio::join!(first.publish(&remote, waits[0]), second.publish(&remote, waits[1]))
    };
    counts.pushes += world.fake.count("POST", "git-receive-pack") - before;
    let failures = usize::from(results.0.is_err()) + usize::from(results.1.is_err());
    let branches = [first.judge(&world, &results.0), second.judge(&world, &results.1)];
    assert_eq!(failures, usize::from(first.conflicts_with(&second)), "{:?} {:?}", first.items, second.items);
    let changed = first.items.iter().chain(&second.items).map(Item::place).collect();
    for branch in &branches {
        assert_base_is_there(&world, branch, &changed);
    }
    if notes {
        assert!(
            world.bare.file(first.publication.destination_branch(), "notes.md").is_some(),
            "the notes were lost"
        );
    }
    world.bare.git(&["fsck", "--strict", "--connectivity-only"]);
    counts.pairs += 1;
    counts.aside += failures;
    counts.together += 2 - failures;
    counts.items += first.items.len() + second.items.len();
}

#[tokio::test]
async fn nothing_is_lost() {
    let pairs = std::env::var("TRAINSPOT_PUBLICATIONS").map_or(5, |text| text.parse().unwrap());
    let seed =
        std::env::var("TRAINSPOT_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    say(&format!("publications: TRAINSPOT_SEED={seed}"));
    let (mut random, mut counts) = (fastrand::Rng::with_seed(seed), Counts::default());
    for _ in 0..pairs {
        pair(&mut random, &mut counts).await;
    }
    let Counts { pairs, in_turn, together, aside, items, pushes } = counts;
    say(&format!(
        "publications: {pairs} pairs, {in_turn} of them in turn; {together} publications on their branch, {aside} on one of \
         their own; all of {items} files, lines and stages there; {pushes} pushes over HTTP"
    ));
}

#[tokio::test]
async fn many_at_once_all_arrive() {
    const STEPS: usize = 9;
    let world = World::new();
    let steps: Vec<_> = (0..STEPS)
        .map(|number| {
            let who = format!("step-{number}");
            let mut publisher =
                Publisher::new(&world, &who, pull_request(), &mut fastrand::Rng::with_seed(0));
            let file = Item::File(format!("model/{number}.bin"), who.clone());
            publisher.items = vec![file, Item::Line(".gitignore".into(), format!("/{who}"))];
            for item in &publisher.items {
                item.make(&publisher.clone);
            }
            publisher.publication =
                publication_of(&who, pull_request(), &[publisher.items[0].path(), ".gitignore"]);
            publisher
        })
        .collect();
    let remote = world.by_token();
    let publishing = steps.iter().map(|step| step.publish(&remote, Duration::ZERO));
    let results = futures_util::future::join_all(publishing).await;
    for (step, result) in steps.iter().zip(results) {
        step.judge(&world, &Ok(result.map_err(|error| error.render()).unwrap()));
    }
    assert_eq!(world.count(BRANCH), 60 + STEPS);
}
