//! Checkpoints of real files.

use super::super::stillness::REST_DURATION;
use super::*;
use std::fs::File;

fn home() -> (tempfile::TempDir, Home) {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::new(folder.path().join("home"));
    home.create().unwrap();
    (folder, home)
}

fn writer(home: &Home, pattern: &str) -> CheckpointWriter {
    CheckpointWriter::new(home, &[pattern.to_owned()], Arc::default())
}

fn write(home: &Home, name: &str, text: &str) {
    let path = home.work().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(100);
    File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
}

#[test]
fn what_was_restored_is_not_saved_again() {
    let (_folder, home) = home();
    write(&home, "state/a.pt", "one");
    let mut writer = writer(&home, "state/*.pt");
    writer.mark_restored();
    assert_eq!(writer.take().unwrap(), None);
    write(&home, "state/a.pt", "two");
    assert_eq!(writer.take().unwrap(), Some(1));
}

#[test]
fn a_checkpoint_holds_the_files_and_their_hashes() {
    let (_folder, home) = home();
    write(&home, "state/a.pt", "one");
    write(&home, "state/b.pt", "two");
    let mut writer = writer(&home, "state/*.pt");
    assert_eq!(writer.take().unwrap(), Some(1));
    let checkpoint = home.checkpoints().join("1");
    let manifest = manifest(&checkpoint).unwrap();
    assert_eq!(
        manifest.hashes,
        [blake3::hash(b"one"), blake3::hash(b"two")].map(|hash| hash.to_hex().to_string())
    );
    assert_eq!(fs::read(files(&checkpoint).join("state/b.pt")).unwrap(), b"two");
}

#[test]
fn only_changes_make_a_new_one_and_two_are_kept() {
    let (_folder, home) = home();
    let mut writer = writer(&home, "s");
    assert_eq!(writer.take().unwrap(), None);
    for number in 1..=4 {
        write(&home, "s", &number.to_string().repeat(number));
        assert_eq!(writer.take().unwrap(), Some(number as u64));
        assert_eq!(writer.take().unwrap(), None);
    }
    let mut left: Vec<u64> = numbers(&home).collect();
    left.sort_unstable();
    assert_eq!(left, [3, 4]);
}

#[test]
fn a_file_that_is_being_written_is_waited_for_unless_the_training_is_over() {
    let (_folder, home) = home();
    fs::write(home.work().join("s"), "half").unwrap();
    let start = Instant::now();
    assert_eq!(writer(&home, "s").take().unwrap(), Some(1));
    assert!(start.elapsed() + Duration::from_millis(50) >= REST_DURATION);
    fs::write(home.work().join("s"), "its last words").unwrap();
    let (start, mut writer) = (Instant::now(), writer(&home, "s"));
    writer.assume_final();
    assert_eq!(writer.take().unwrap(), Some(2));
    assert!(start.elapsed() < REST_DURATION);
}

#[test]
fn a_partial_copy_does_not_count() {
    let (_folder, home) = home();
    fs::create_dir_all(home.checkpoints().join("7.partial")).unwrap();
    assert_eq!(newest(&home), None);
}

#[test]
fn a_change_that_hides_its_time_is_seen() {
    let (_folder, home) = home();
    let mut writer = writer(&home, "s");
    write(&home, "s", "one");
    let before = fs::metadata(home.work().join("s")).unwrap().modified().unwrap();
    assert_eq!(writer.take().unwrap(), Some(1));
    fs::write(home.work().join("s"), "two").unwrap();
    File::options().write(true).open(home.work().join("s")).unwrap().set_modified(before).unwrap();
    assert_eq!(writer.take().unwrap(), Some(2));
}

#[test]
fn nothing_is_written_once_it_is_over() {
    let (_folder, home) = home();
    write(&home, "s", "one");
    let mut writer = writer(&home, "s");
    writer.over.store(true, Ordering::Relaxed);
    assert_eq!(writer.take().unwrap(), None);
    assert!(
        writer.fill(&home.checkpoints().join("1.partial"), &CopyPlan::all(writer.look().unwrap())).is_err()
    );
}

/// What the newest checkpoint holds of a file.
fn saved(home: &Home, name: &str) -> String {
    let newest = home.checkpoints().join(newest(home).unwrap().to_string());
    fs::read_to_string(files(&newest).join(name)).unwrap()
}

fn append(home: &Home, name: &str, text: &str) {
    let mut file = File::options().append(true).open(home.work().join(name)).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
}

#[test]
fn a_log_that_was_saved_before_is_saved_again_without_a_wait() {
    let (_folder, home) = home();
    write(&home, "out/s", "one");
    write(&home, "out/log", "first\n");
    let mut writer = writer(&home, "out");
    assert_eq!(writer.take().unwrap(), Some(1));
    append(&home, "out/log", "second\n");
    let items = writer.look().unwrap();
    let chosen = choice_of(items, &writer).unwrap();
    // It grows on before it is copied, and is taken as it was.
    append(&home, "out/log", "third\n");
    assert_eq!(writer.copy(&chosen).unwrap(), Some(2));
    assert_eq!(saved(&home, "out/log"), "first\nsecond\n");
}

fn choice_of(items: Vec<WatchedFile>, writer: &CheckpointWriter) -> Result<CopyPlan, Vec<String>> {
    let (now, work) = (Instant::now(), writer.home.work());
    let mut watch = StillnessWatch::new(&work, &[]);
    watch.look(&items, now, SystemTime::now());
    watch.choose(items, &writer.taken, now, WaitStage::Early)
}

#[test]
fn a_file_that_only_seems_to_grow_is_found_out_and_waited_for() {
    let (_folder, home) = home();
    write(&home, "out/model", "of epoch 1");
    let mut writer = writer(&home, "out");
    assert_eq!(writer.take().unwrap(), Some(1));
    // In its place, and longer already, though it is not finished.
    fs::write(home.work().join("out/model"), "of epoch two, which is being writ").unwrap();
    let items = writer.look().unwrap();
    let chosen = choice_of(items.clone(), &writer).unwrap();
    assert_eq!(writer.copy(&chosen).unwrap(), None);
    let blocking = choice_of(items, &writer).unwrap_err();
    assert_eq!(blocking, ["'out/model'"]);
    assert_eq!(writer.take().unwrap(), Some(2));
    assert_eq!(saved(&home, "out/model"), "of epoch two, which is being writ");
}

#[test]
fn what_is_renamed_and_removed_while_it_is_copied_is_saved_as_it_was() {
    let (_folder, home) = home();
    for name in ["out/a", "out/b", "out/c"] {
        write(&home, name, name);
    }
    let mut writer = writer(&home, "out");
    let choice = CopyPlan::all(writer.look().unwrap());
    let copying = |writer: &CheckpointWriter| {
        let work = home.work();
        let to = home.checkpoints().join("copy");
        let copying =
            Copying { from: &work, to: &to, choice: &choice, taken: &writer.taken, over: &writer.over };
        let open = copying.open().unwrap().unwrap();
        fs::rename(work.join("out/a"), work.join("out/b")).unwrap();
        fs::remove_file(work.join("out/c")).unwrap();
        assert!(matches!(copying.copy_all(open).unwrap(), Copied::Whole(hashes) if hashes.len() == 3));
        for name in ["out/a", "out/b", "out/c"] {
            assert_eq!(fs::read_to_string(to.join(name)).unwrap(), name);
        }
    };
    copying(&writer);
    // What changed between the look and the copy is no moment.
    assert_eq!(writer.copy(&choice).unwrap(), None);
}

#[test]
fn a_file_that_is_written_in_its_place_while_it_is_copied_is_not_saved() {
    let (_folder, home) = home();
    write(&home, "out/a", "one");
    write(&home, "out/b", "one");
    let writer = writer(&home, "out");
    let choice = CopyPlan::all(writer.look().unwrap());
    let (work, to) = (home.work(), home.checkpoints().join("copy"));
    let copying = Copying { from: &work, to: &to, choice: &choice, taken: &writer.taken, over: &writer.over };
    let open = copying.open().unwrap().unwrap();
    fs::write(work.join("out/b"), "two").unwrap();
    assert!(matches!(copying.copy_all(open).unwrap(), Copied::Changed));
}

#[test]
fn links_are_saved_as_links_and_more_files_than_can_be_open() {
    let (_folder, home) = home();
    for number in 0..600 {
        write(&home, &format!("out/checkpoint-3/{number:03}"), "x");
    }
    std::os::unix::fs::symlink("checkpoint-3", home.work().join("out/last")).unwrap();
    let mut writer = writer(&home, "out");
    assert_eq!(writer.take().unwrap(), Some(1));
    let checkpoint = files(&home.checkpoints().join("1"));
    assert_eq!(checkpoint.join("out/last").read_link().unwrap(), Path::new("checkpoint-3"));
    assert_eq!(fs::read_dir(checkpoint.join("out/last")).unwrap().count(), 600);
    // One that leads elsewhere is a change.
    fs::create_dir(home.work().join("out/checkpoint-4")).unwrap();
    write(&home, "out/checkpoint-4/000", "y");
    fs::remove_file(home.work().join("out/last")).unwrap();
    std::os::unix::fs::symlink("checkpoint-4", home.work().join("out/last")).unwrap();
    assert_eq!(writer.take().unwrap(), Some(2));
    assert_eq!(saved(&home, "out/last/000"), "y");
}
