//! Checkpoints over whole local runs: kept, restored, rescued, and refused a place.

use super::{scene, wait_for};
use crate::support::{Access, Run, Scene, agents};

#[test]
fn a_machine_that_is_lost_is_replaced_and_the_training_goes_on_from_its_checkpoint() {
    let mut scene = scene(Access::Token);
    let command = "mkdir -p model; test $TRAINSPOT_RESUME = 1 && cp state model/m.bin && echo '{}' > model/metrics.json && exit 0; \
        echo half way > state; sleep 45";
    scene
        .set("TRAIN_COMMAND", command)
        .set("CHECKPOINTS", "state")
        .set("CHECKPOINT_INTERVAL", "1s")
        .set("ORPHAN_GRACE", "8s");
    let child = scene.start();
    let saved = || {
        let found = walkdir::WalkDir::new(scene.scratch()).into_iter().flatten();
        found.map(walkdir::DirEntry::into_path).any(|path| path.ends_with("1/state"))
    };
    wait_for(saved);
    let supervisors = agents(scene.scratch().to_str().unwrap(), "supervise");
    assert_eq!(supervisors.len(), 1);
    rustix::process::kill_process(supervisors[0], rustix::process::Signal::KILL).unwrap();
    let run = Run::from(child.wait_with_output().unwrap()).expect(0);
    assert!(
        run.log.contains("the machine was lost") && run.log.contains("TRAINSPOT_RESUME=1"),
        "{}",
        run.log
    );
    assert_eq!(scene.remote.file(&scene.branch(), "model/m.bin").unwrap(), b"half way\n");
    scene.assert_nothing_left();
}

#[test]
fn a_link_in_a_checkpoint_is_a_link_on_the_next_machine_and_in_the_clone() {
    let mut scene = scene(Access::Token);
    // As trainers do it: the link is removed, which fails on a folder, and made anew.
    let command = "mkdir -p ckpt; n=$((4 - 2 * TRAINSPOT_RESUME)); test $n = 4 || rm ckpt/last || exit 9
        mkdir ckpt/checkpoint-$n; echo $n > ckpt/checkpoint-$n/a.pt; ln -s checkpoint-$n ckpt/last
        ln -s \"$PWD/ckpt/checkpoint-$n/a.pt\" ckpt/newest-$n.pt; test $n = 4 || exit 3; sleep 45";
    scene.set("TRAIN_COMMAND", command).set("CHECKPOINTS", "ckpt").set("CHECKPOINT_INTERVAL", "1s");
    scene.set("ORPHAN_GRACE", "8s");
    let child = scene.start();
    let saved = |number: &str, file: &str| {
        let found = walkdir::WalkDir::new(scene.scratch()).into_iter().flatten();
        found.map(walkdir::DirEntry::into_path).any(|path| path.ends_with(format!("{number}/ckpt/{file}")))
    };
    wait_for(|| saved("1", "newest-4.pt"));
    let supervisors = agents(scene.scratch().to_str().unwrap(), "supervise");
    rustix::process::kill_process(supervisors[0], rustix::process::Signal::KILL).unwrap();
    let run = Run::from(child.wait_with_output().unwrap()).expect(4);
    assert!(
        run.last_line().contains("exit code 3") || run.out.contains("failed with exit code 3"),
        "{}",
        run.out
    );
    // The run failed, so the newest checkpoint is in the clone: the one of the first machine.
    let link = |name: &str| scene.clone().join("ckpt").join(name).read_link().unwrap().display().to_string();
    assert_eq!((link("last"), link("newest-4.pt")), ("checkpoint-4".into(), "checkpoint-4/a.pt".into()));
    assert_eq!(std::fs::read(scene.clone().join("ckpt/last/a.pt")).unwrap(), b"4\n");
    scene.assert_nothing_left();
}

#[test]
fn a_log_that_always_grows_keeps_no_checkpoint_from_being_taken() {
    let mut scene = scene(Access::Token);
    let command = "mkdir -p runs/ckpt model; (while :; do echo event >> runs/events.out.tfevents; sleep 0.2; done) &
        for i in 1 2 3 4; do echo $i > unfinished; mv unfinished runs/ckpt/s; sleep 4; done; cp runs/ckpt/s model/m.bin";
    scene.set("TRAIN_COMMAND", command).set("OUTPUTS", "model/m.bin");
    scene.set("CHECKPOINTS", "runs").set("CHECKPOINT_INTERVAL", "1s");
    let run = scene.run().expect(0);
    assert!(run.log.matches("checkpoint saved").count() >= 2, "{}", run.log);
    assert!(
        !run.log.contains("no checkpoint") && !run.log.contains("checkpoint was taken without"),
        "{}",
        run.log
    );
}

/// The folder of the pipe's for a run of this scene. Its name holds the run's, which a first run tells.
fn pipe_folder(scene: &Scene) -> std::path::PathBuf {
    let mut child = scene.start();
    let folder = || {
        let entries = std::fs::read_dir(scene.scratch()).unwrap().flatten();
        entries.map(|entry| entry.path()).find(|path| path.to_str().unwrap().contains("trainspot-pipe-"))
    };
    wait_for(|| folder().is_some());
    let found = folder().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    child.wait().unwrap();
    found
}

/// Where anybody may make a folder, somebody may have made the machine's, with a socket that answers, and
/// have started what looks like its supervisor.
#[test]
fn a_machine_of_somebody_else_is_not_trusted() {
    use std::os::unix::process::CommandExt as _;
    if !rustix::process::geteuid().is_root() {
        return skip::skip("only root can make a folder of somebody else's");
    }
    let mut scene = scene(Access::Token);
    scene.set("PUBLISH", "none").set("TRAIN_COMMAND", "sleep 600");
    let home = pipe_folder(&scene).to_str().unwrap().replace("trainspot-pipe-", "trainspot-");
    let home = std::path::Path::new(&home);
    std::fs::create_dir_all(home.join("run")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(home.join("run/socket")).unwrap();
    socket.set_nonblocking(true).unwrap();
    for path in [home.to_owned(), home.join("run"), home.join("run/socket")] {
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    std::fs::write(scene.clone().join("agent"), "sleep 600").unwrap();
    let mut supervisor = std::process::Command::new("/bin/sh");
    supervisor.args(["agent", "supervise", "--home"]).arg(home).current_dir(scene.clone()).process_group(0);
    let mut supervisor = supervisor.spawn().unwrap();
    let run = scene.run();
    let group = rustix::process::Pid::from_child(&supervisor);
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    supervisor.wait().unwrap();
    let run = run.expect(3);
    let told = format!("the folder {} belongs to somebody else", home.display());
    assert!(run.out.contains(&told) && run.out.contains("set TMPDIR to a folder of your own"), "{}", run.out);
    assert!(socket.accept().is_err(), "the pipe spoke to somebody else's machine");
    assert!(home.join("run/socket").exists(), "and it is not ours to remove");
}

/// Where anybody may make a folder, somebody may have made the pipe's, and left it open to all.
#[test]
fn a_checkpoint_folder_of_somebody_else_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    if !rustix::process::geteuid().is_root() {
        return skip::skip("only root can make a folder of somebody else's");
    }
    let mut scene = scene(Access::Token);
    scene.set("PUBLISH", "none").set("TRAIN_COMMAND", "sleep 600");
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let folder = pipe_folder(&scene);
    std::fs::create_dir(&folder).unwrap();
    open(&folder, 0o777);
    open(scene.folder.path(), 0o755);
    open(&scene.scratch(), 0o1777);
    for item in
        walkdir::WalkDir::new(scene.clone()).into_iter().flatten().filter(|item| !item.path_is_symlink())
    {
        let mode = if item.file_type().is_dir() { 0o777 } else { 0o666 };
        open(item.path(), mode);
    }
    // The program itself may stand where nobody else can go.
    let program = scene.folder.path().join("trainspot");
    std::fs::copy(env!("CARGO_BIN_EXE_trainspot"), &program).unwrap();
    let command = scene.command();
    let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    let mut other = std::process::Command::new(program);
    other.env_clear().envs(variables).current_dir(scene.clone()).uid(65534).gid(65534);
    let output = other.output().unwrap();
    let run = Run::from(output).expect(3);
    let told = format!("the folder {} belongs to somebody else", folder.display());
    assert!(run.out.contains(&told) && run.out.contains("set TMPDIR to a folder of your own"), "{}", run.out);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_checkpoint_that_cannot_be_taken_is_told() {
    let mut scene = scene(Access::Token);
    let command =
        "mkdir -p model; for i in $(seq 150); do echo $i > state; sleep 0.1; done; cp state model/m.bin";
    scene.set("TRAIN_COMMAND", command).set("OUTPUTS", "model/m.bin");
    scene.set("CHECKPOINTS", "state").set("CHECKPOINT_INTERVAL", "1s");
    let run = scene.run().expect(0);
    let told =
        "no checkpoint could be taken: the files of the checkpoint never rested long enough to be copied";
    let told = format!("{told}: 'state'");
    assert_eq!(run.log.matches(&told).count(), 1, "{}", run.log);
}
