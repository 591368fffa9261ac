//! The rule of stillness under a clock of the tests' own: what is chosen of files that are written in certain
//! ways.

use super::*;
use std::time::UNIX_EPOCH;
use trainspot_transfer::EntryPath;

const STEP: Duration = Duration::from_millis(500);
const NO_FILES: &[&str] = &[];

/// A training's files, and looks at them.
struct Scene {
    folder: tempfile::TempDir,
    start: Instant,
    /// The time since the start.
    time: Duration,
    inodes: u64,
    files: BTreeMap<PathBuf, (EntryKind, FileStamp)>,
}

impl Scene {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            start: Instant::now(),
            time: Duration::from_secs(1000),
            inodes: 0,
            files: BTreeMap::new(),
        }
    }

    fn moment(&self) -> (i64, i64) {
        (i64::try_from(self.time.as_secs()).unwrap(), self.time.subsec_nanos().into())
    }

    /// Writes a file in place.
    fn write(&mut self, path: &str, bytes: u64) {
        let moment = self.moment();
        self.inodes += 1;
        let new = FileStamp { inode: self.inodes, ..FileStamp::default() };
        let kind = EntryKind::File { bytes, executable: false };
        let (_, stamp) = self.files.entry(path.into()).or_insert((kind, new));
        *stamp = FileStamp { bytes, modified: moment, changed: moment, ..*stamp };
    }

    fn append(&mut self, path: &str, bytes: u64) {
        let before = self.files.get(Path::new(path)).map_or(0, |(_, stamp)| stamp.bytes);
        self.write(path, before + bytes);
    }

    /// Puts a file that was just written elsewhere into its place.
    fn rename(&mut self, path: &str, bytes: u64) {
        self.files.remove(Path::new(path));
        self.write(path, bytes);
        let moment = self.moment();
        let (_, stamp) = self.files.get_mut(Path::new(path)).unwrap();
        stamp.modified = (moment.0, moment.1 - 1);
    }

    /// A file of this text, which rests.
    fn text(&mut self, path: &str, text: &str) {
        let place = self.folder.path().join(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, text).unwrap();
        self.write(path, text.len() as u64);
        let (_, stamp) = self.files.get_mut(Path::new(path)).unwrap();
        (stamp.modified, stamp.changed) = ((1, 0), (1, 0));
    }

    fn link(&mut self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.folder.path().join(path)).unwrap();
        let kind = EntryKind::Link { target: EntryPath::Text(target.to_owned()) };
        self.files.insert(path.into(), (kind, FileStamp::default()));
    }

    fn items(&self) -> Vec<WatchedFile> {
        let item = |(path, (kind, stamp)): (&PathBuf, &(EntryKind, FileStamp))| WatchedFile {
            path: path.clone(),
            entry: BundleEntry { path: EntryPath::from(path.as_path()), kind: kind.clone() },
            stamp: *stamp,
        };
        self.files.iter().map(item).collect()
    }

    /// The files as the last checkpoint has them; those that were found to be written anew have no hash.
    fn known(&self, hash: Option<&str>) -> SavedFiles {
        let taken =
            |item: WatchedFile| (item.path, SavedFile { stamp: item.stamp, hash: hash.map(str::to_owned) });
        self.items().into_iter().map(taken).collect()
    }

    /// Looks at the files while the training goes on, for up to ten seconds.
    fn watch(&mut self, known: &SavedFiles, go_on: impl Fn(&mut Self, u32)) -> Result<CopyPlan, Vec<String>> {
        let (root, bases) = (self.folder.path().to_owned(), [PathBuf::from("out")]);
        let mut watch = StillnessWatch::new(&root, &bases);
        for look in 1..=20 {
            go_on(self, look);
            let (now, items) = (self.start + self.time, self.items());
            watch.look(&items, now, UNIX_EPOCH + self.time);
            let waited = match look {
                20 => WaitStage::LastLook,
                11.. => WaitStage::HabitsKnown,
                _ => WaitStage::Early,
            };
            let chosen = watch.choose(items, known, now, waited);
            if chosen.is_ok() || look == 20 {
                return chosen;
            }
            self.time += STEP;
        }
        unreachable!()
    }
}

fn paths(choice: &CopyPlan) -> Vec<&str> {
    choice.items.iter().map(|item| item.path.to_str().unwrap()).collect()
}

fn logs(choice: &CopyPlan) -> Vec<&str> {
    choice.logs.iter().map(|path| path.to_str().unwrap()).collect()
}

#[test]
fn a_renamed_file_is_whole_at_once_and_one_that_is_written_is_not() {
    let mut scene = Scene::new();
    let choice = scene.watch(&SavedFiles::new(), |scene, _| scene.rename("out/s", 100)).unwrap();
    assert_eq!(paths(&choice), ["out/s"]);
    let blocking = scene.watch(&SavedFiles::new(), |scene, look| scene.write("out/s", 2 << (20 + look % 2)));
    assert_eq!(blocking.unwrap_err(), ["'out/s'"]);
}

#[test]
fn a_log_is_taken_as_far_as_it_came() {
    let mut scene = Scene::new();
    let grow = |scene: &mut Scene, look: u32| {
        scene.append("out/events", 300_000);
        if look % 8 == 1 {
            scene.rename("out/ckpt/s", 5 << 20);
        }
    };
    let choice = scene.watch(&SavedFiles::new(), grow).unwrap();
    assert_eq!((paths(&choice), logs(&choice)), (vec!["out/ckpt/s", "out/events"], vec!["out/events"]));
    assert_eq!(choice.left_out, NO_FILES);
    let waited = scene.time;
    // The next time it is known, and its beginning is proved when it is copied.
    let known = scene.known(Some("of then"));
    scene.time += STEP;
    let choice = scene.watch(&known, grow).unwrap();
    assert_eq!((logs(&choice), scene.time), (vec!["out/events"], waited + STEP));
}

#[test]
fn a_file_that_grows_fast_may_be_a_checkpoint_and_is_waited_for() {
    let mut scene = Scene::new();
    scene.text("out/epoch", "7");
    let grow = |scene: &mut Scene, _| scene.append("out/model.bin", 40 << 20);
    assert_eq!(scene.watch(&SavedFiles::new(), grow).unwrap_err(), ["'out/model.bin'"]);
}

#[test]
fn a_small_file_that_is_written_again_and_again_costs_no_other() {
    let mut scene = Scene::new();
    let rewrite = |scene: &mut Scene, look: u32| {
        scene.write("out/status.json", 1000 + u64::from(look % 3));
        if look == 3 {
            scene.write("out/model.h5", 30 << 20);
        }
    };
    let known = SavedFiles::new();
    let choice = scene.watch(&known, rewrite).unwrap();
    assert_eq!(paths(&choice), ["out/model.h5"]);
    assert_eq!(choice.left_out, ["'out/status.json' (written again and again)"]);
    // Also where the last checkpoint has it.
    let known = scene.known(None);
    scene.rename("out/model.h5", 30 << 20);
    assert_eq!(paths(&scene.watch(&known, rewrite).unwrap()), ["out/model.h5"]);
    // A large one may be what the training goes on from.
    let rewrite = |scene: &mut Scene, look: u32| scene.write("out/model.h5", 30 << (20 + look % 2));
    assert_eq!(scene.watch(&known, rewrite).unwrap_err(), ["'out/model.h5'"]);
}

#[test]
fn logs_alone_are_nothing_to_go_on_from() {
    let mut scene = Scene::new();
    let go_on = |scene: &mut Scene, look: u32| {
        scene.append("out/events", 100);
        scene.write("out/state", 100 + u64::from(look % 3));
    };
    let lacking = scene.watch(&SavedFiles::new(), go_on).unwrap_err();
    assert_eq!(lacking, ["'out/state' (written again and again)"]);
}

/// Hugging Face's Trainer: each checkpoint is a folder of several files, written one after another.
#[test]
fn a_folder_that_is_not_finished_is_left_out_whole() {
    let mut scene = Scene::new();
    for file in ["model.safetensors", "optimizer.pt", "trainer_state.json"] {
        scene.text(&format!("out/checkpoint-500/{file}"), "of 500");
    }
    let write = |scene: &mut Scene, look: u32| {
        scene.append("out/runs/events.out.tfevents.1", 400);
        // Each file takes seconds, and so the first rests while the next is written.
        scene.append(&format!("out/checkpoint-1000/model-{}.safetensors", look / 7), 300 << 20);
    };
    let choice = scene.watch(&SavedFiles::new(), write).unwrap();
    assert_eq!(choice.left_out, ["'out/checkpoint-1000' (not finished)"]);
    let expected = [
        "out/checkpoint-500/model.safetensors",
        "out/checkpoint-500/optimizer.pt",
        "out/checkpoint-500/trainer_state.json",
        "out/runs/events.out.tfevents.1",
    ];
    assert_eq!(paths(&choice), expected);
}

/// DeepSpeed, and PyTorch's older trainers: a file or a link says from which folder to go on.
#[test]
fn nothing_that_points_to_an_unfinished_folder_is_taken() {
    let write = |scene: &mut Scene, _: u32| scene.append("out/global_step20/shard_0.pt", 300 << 20);
    for (latest, taken) in [("global_step10", true), ("global_step20", false)] {
        let mut scene = Scene::new();
        scene.text("out/global_step10/shard_0.pt", "of 10");
        scene.text("out/latest", latest);
        let choice = scene.watch(&SavedFiles::new(), write);
        assert_eq!(choice.is_ok(), taken, "{latest}: {choice:?}");
    }
    for (leads, taken) in [("global_step10", true), ("global_step20", false)] {
        let mut scene = Scene::new();
        scene.text("out/global_step10/shard_0.pt", "of 10");
        std::fs::create_dir(scene.folder.path().join("out/global_step20")).unwrap();
        scene.link("out/last", leads);
        let choice = scene.watch(&SavedFiles::new(), write);
        assert_eq!(choice.is_ok(), taken, "{leads}: {choice:?}");
    }
}

/// XGBoost's checkpoints: another file after every few rounds, each of its own.
#[test]
fn a_file_that_just_came_costs_no_other() {
    let mut scene = Scene::new();
    let write = |scene: &mut Scene, look: u32| scene.write(&format!("out/model_{look:02}.json"), 5 << 20);
    let choice = scene.watch(&SavedFiles::new(), write).unwrap();
    assert_eq!(choice.items.len(), 18);
    assert_eq!(choice.left_out, ["'out/model_19.json' (not finished)", "'out/model_20.json' (not finished)"]);
}

/// A file that the training goes on from is not left out while it is written: the last checkpoint is better.
#[test]
fn what_the_last_checkpoint_has_is_not_left_out() {
    let mut scene = Scene::new();
    scene.text("out/model.h5", "of epoch 1");
    scene.text("out/epoch", "1");
    let known = scene.known(None);
    scene.text("out/epoch", "2");
    let write = |scene: &mut Scene, look: u32| scene.write("out/model.h5", u64::from(look) << 26);
    assert_eq!(scene.watch(&known, write).unwrap_err(), ["'out/model.h5'"]);
}

#[test]
fn a_link_to_what_is_left_out_goes_with_it() {
    let mut scene = Scene::new();
    scene.text("out/s", "seven");
    scene.text("out/run/status.json", "{}");
    scene.link("out/latest", "run");
    scene.link("out/newest", "s");
    let choice = scene
        .watch(&SavedFiles::new(), |scene, look| scene.write("out/run/status.json", 9 + u64::from(look % 2)));
    assert_eq!(paths(&choice.unwrap()), ["out/newest", "out/s"]);
}

#[test]
fn an_empty_file_is_about_to_be_written_unless_it_stays_empty() {
    let mut scene = Scene::new();
    scene.text("out/epoch", "7");
    let begin = |scene: &mut Scene, look: u32| match look {
        1 => scene.write("out/model", 0),
        5 => scene.write("out/model", 30 << 20),
        _ => {}
    };
    let start = scene.time;
    let choice = scene.watch(&SavedFiles::new(), begin).unwrap();
    assert_eq!(
        (paths(&choice), scene.time.saturating_sub(start)),
        (vec!["out/epoch", "out/model"], 6 * STEP)
    );
    let start = scene.time;
    let choice = scene
        .watch(&SavedFiles::new(), |scene, look| {
            if look == 1 {
                scene.write("out/lock", 0);
            }
        })
        .unwrap();
    assert_eq!((choice.items.len(), scene.time.saturating_sub(start)), (3, HABIT_DURATION));
}
