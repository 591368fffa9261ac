//! The one commit that a machine gets, as git itself sees it there.

use super::*;
use std::process::Command;
use trainspot_git::Snapshot;

/// A machine's folder: the workspace's files, and the snapshot of the clone that they come from.
struct Machine(tempfile::TempDir);

impl Machine {
    fn of(world: &World) -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for entry in world.checkout().workspace(&[]).unwrap() {
            let path = entry.path.to_path();
            let (from, to) = (world.clone().join(&path), machine.0.path().join(&path));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            match from.read_link() {
                Ok(target) => std::os::unix::fs::symlink(target, to).unwrap(),
                Err(_) => drop(fs::copy(from, to).unwrap()),
            }
        }
        machine.restore(&sent(world)).unwrap();
        machine
    }

    fn restore(&self, bytes: &[u8]) -> Result<(), String> {
        Snapshot::restore(bytes, self.0.path()).map_err(|error| error.render())
    }

    /// What git says, without the user's and the system's own settings.
    fn git(&self, arguments: &[&str]) -> Result<String, String> {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.0.path()).args(arguments).env("HOME", self.0.path());
        git.envs([("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CEILING_DIRECTORIES", "/")]);
        let output = git.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    fn says(&self, arguments: &[&str]) -> String {
        self.git(arguments).unwrap_or_else(|error| panic!("git {arguments:?}: {error}"))
    }
}

fn sent(world: &World) -> Vec<u8> {
    let mut bytes = Vec::new();
    world.checkout().snapshot("trainer", "trainer@example.com").unwrap().write(&mut bytes).unwrap();
    bytes
}

fn commit(world: &World, files: &[(&str, &[u8])]) {
    for (path, content) in files {
        world.write(path, content);
    }
    world.git_in_clone(&["add", "--all", "--force"]);
    world.git_in_clone(&["-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "-m", "more"]);
}

#[test]
fn a_machine_has_the_commit_and_nothing_before_it() {
    let world = World::new();
    commit(&world, &[("secret.txt", b"old secret"), ("deep/er/train.py", b"print(1)\n")]);
    let old = world.git_in_clone(&["rev-parse", "HEAD:secret.txt"]).trim().to_owned();
    commit(&world, &[("secret.txt", b"nothing here")]);
    world.git_in_clone(&["config", "http.extraHeader", "Authorization: Bearer abc123"]);
    fs::write(world.clone().join(".git/hooks/pre-commit"), "#!/bin/sh\nexit 1\n").unwrap();
    let machine = Machine::of(&world);

    let head = world.git_in_clone(&["rev-parse", "HEAD"]);
    assert_eq!(machine.says(&["rev-parse", "HEAD"]), head.trim());
    assert_eq!(machine.says(&["rev-parse", "--abbrev-ref", "HEAD"]), "main");
    assert_eq!(machine.says(&["rev-list", "--all", "--count"]), "1");
    assert_eq!(machine.says(&["status", "--porcelain"]), "");
    assert_eq!(machine.says(&["ls-files"]), world.git_in_clone(&["ls-files"]).trim_end());
    assert_eq!(machine.says(&["fsck", "--strict"]), "");
    assert_eq!(machine.says(&["remote"]), "");
    assert!(machine.git(&["cat-file", "-e", &old]).is_err(), "an older content is there");
    let settings = machine.says(&["config", "--local", "--list"]);
    assert!(!settings.contains("abc123") && !settings.contains("bitbucket"), "{settings}");
    assert!(!machine.0.path().join(".git/hooks/pre-commit").exists());
    // What trainings do with it: `git init` again, commit, look at what changed.
    machine.says(&["init", "--quiet"]);
    fs::write(machine.0.path().join("model.bin"), "weights").unwrap();
    machine.says(&["add", "--all"]);
    machine.says(&["commit", "--quiet", "-m", "trained"]);
    assert_eq!(machine.says(&["log", "-1", "--format=%an <%ae>"]), "trainer <trainer@example.com>");
    assert_eq!(machine.says(&["diff", "--name-only", "HEAD~"]), "model.bin");
    // A machine that gets it again has it as it was.
    machine.restore(&sent(&world)).unwrap();
    assert_eq!(machine.says(&["status", "--porcelain"]), "?? model.bin");
}

#[test]
fn contents_that_files_do_not_have_go_along_unless_the_file_stays_away() {
    let world = World::new();
    let large = vec![b'x'; 2 << 20];
    commit(
        &world,
        &[
            (".gitattributes", b"*.crlf text eol=crlf\n"),
            ("lines.crlf", b"one\r\ntwo\r\n"),
            ("changed.txt", b"before\n"),
            ("large.bin", &large),
            ("removed.txt", b"was here\n"),
        ],
    );
    std::os::unix::fs::symlink("changed.txt", world.clone().join("link")).unwrap();
    commit(&world, &[("x", b"x")]);
    let removed = world.git_in_clone(&["rev-parse", "HEAD:removed.txt"]).trim().to_owned();
    world.write("changed.txt", b"after\n");
    world.write("large.bin", b"small now");
    fs::remove_file(world.clone().join("removed.txt")).unwrap();
    let machine = Machine::of(&world);

    assert_eq!(machine.says(&["status", "--porcelain"]), " M changed.txt\n M large.bin\n D removed.txt");
    assert_eq!(machine.says(&["show", "HEAD:changed.txt"]), "before");
    assert_eq!(machine.says(&["show", "HEAD:link"]), "changed.txt");
    assert_eq!(machine.says(&["show", "HEAD:lines.crlf"]), "one\ntwo");
    assert!(machine.git(&["cat-file", "-e", &removed]).is_err(), "a removed file's content is there");
    assert!(sent(&world).len() < 1 << 20, "the large file's old content was sent");
}

#[test]
fn a_clone_without_a_branch_and_one_with_a_submodule_have_a_commit_too() {
    let world = World::new();
    let inner = world.clone().join("inner");
    world.git_in_clone(&["clone", "--quiet", world.bare.path().to_str().unwrap(), inner.to_str().unwrap()]);
    world.git_in_clone(&["-c", "advice.addEmbeddedRepo=false", "add", "inner"]);
    commit(&world, &[("x", b"x")]);
    world.git_in_clone(&["checkout", "--quiet", "--detach"]);
    let machine = Machine::of(&world);
    let head = world.git_in_clone(&["rev-parse", "HEAD"]);
    assert_eq!(machine.says(&["rev-parse", "HEAD"]), head.trim());
    assert_eq!(machine.says(&["rev-parse", "--abbrev-ref", "HEAD"]), "HEAD");
    assert!(machine.says(&["ls-files", "--stage"]).contains("160000"));
}

#[test]
fn what_is_no_commit_is_refused_and_makes_no_repository_that_looks_whole() {
    let world = World::new();
    let whole = sent(&world);
    let folder = tempfile::tempdir().unwrap();
    for bytes in [&b""[..], b"{}\n", b"no json\nPACK", &whole[..whole.len() / 2], &whole[..whole.len() - 1]] {
        let error = Snapshot::restore(bytes, folder.path()).unwrap_err().render();
        assert!(error.contains("cannot make the workspace a git repository"), "{error}");
    }
    Snapshot::restore(&whole[..], folder.path()).unwrap();
}
