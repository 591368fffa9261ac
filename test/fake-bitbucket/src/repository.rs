//! Bare repositories made in no time, and clones of them as Pipelines makes them.

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A bare repository on disk: what Bitbucket keeps.
#[derive(Clone, Debug)]
pub struct BareRepository {
    path: PathBuf,
}

impl BareRepository {
    /// Makes one at `path` whose branch `main` has `commits` commits, each changing `history.txt`, and a
    /// `README.md`.
    pub fn create(path: &Path, commits: usize) -> Self {
        run(git().args(["init", "--quiet", "--bare", "--initial-branch=main"]).arg(path), b"");
        let repository = Self { path: path.to_owned() };
        let mut stream = String::new();
        for number in 1..=commits {
            let text = format!("line {number}\n");
            write!(stream, "{}", header("main", 1_700_000_000 + number, &format!("commit {number}")))
                .expect("text into a string");
            if number == 1 {
                stream.push_str("M 100644 inline README.md\ndata 9\n# Forest\n\n");
            }
            write!(stream, "M 100644 inline history.txt\ndata {}\n{text}\n", text.len())
                .expect("text into a string");
        }
        repository.import(stream.as_bytes());
        repository
    }

    /// The one that is already at `path`.
    pub fn open(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Commits files to a branch (made from `main` where it is new) as somebody else would, and returns the
    /// hash.
    pub fn commit(&self, branch: &str, message: &str, files: &[(&str, &[u8])]) -> String {
        let parent = self.head(branch).or_else(|| self.head("main"));
        let mut stream = header(branch, 1_800_000_000, message).into_bytes();
        if let Some(parent) = parent {
            stream.extend_from_slice(format!("from {parent}\n").as_bytes());
        }
        for (name, content) in files {
            stream.extend_from_slice(format!("M 100644 inline {name}\ndata {}\n", content.len()).as_bytes());
            stream.extend_from_slice(content);
            stream.push(b'\n');
        }
        self.import(&stream);
        self.head(branch).expect("the branch just committed to")
    }

    /// The commit at a branch's tip.
    pub fn head(&self, branch: &str) -> Option<String> {
        let mut command = self.command();
        command.args(["rev-parse", "--quiet", "--verify", &format!("refs/heads/{branch}")]);
        let output = command.output().expect("git can be started");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Whether the commit is there, on a branch or on none.
    pub fn has_commit(&self, hash: &str) -> bool {
        let mut command = self.command();
        let output = command.args(["cat-file", "-e", &format!("{hash}^{{commit}}")]).output();
        output.expect("git can be started").status.success()
    }

    /// A file's content at a revision, if it is there.
    pub fn file(&self, revision: &str, path: &str) -> Option<Vec<u8>> {
        let mut command = self.command();
        let output =
            command.args(["show", &format!("{revision}:{path}")]).output().expect("git can be started");
        output.status.success().then_some(output.stdout)
    }

    /// Runs git in it and returns what it printed; panics where git fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        String::from_utf8_lossy(&run(self.command().args(arguments), b"")).trim().to_owned()
    }

    /// Declines pushes to a branch with Bitbucket's words, as a branch restriction does.
    pub fn reject_pushes_to(&self, branch: &str) {
        let script = format!(
            "#!/bin/sh\nwhile read old new ref; do\n  if [ \"$ref\" = 'refs/heads/{branch}' ]; then\n    \
             echo 'Permission denied to update branch {branch}.' >&2\n    exit 1\n  fi\ndone\n"
        );
        let hook = self.path.join("hooks/pre-receive");
        std::fs::create_dir_all(self.path.join("hooks")).expect("the hooks' directory");
        std::fs::write(&hook, script).expect("the hook");
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).expect("the hook's mode");
    }

    fn import(&self, stream: &[u8]) {
        run(self.command().args(["fast-import", "--quiet", "--force"]), stream);
    }

    fn command(&self) -> Command {
        let mut command = git();
        command.arg("--git-dir").arg(&self.path);
        command
    }
}

/// What a cloud runner does before the step's script, by the setup log that it prints.
pub(crate) fn clone_as_pipelines(url: &str, origin: &str, branch: &str, directory: &Path) {
    let clone = "umask 000; exec git clone --quiet --branch=\"$1\" --depth 50 \"$2\" \"$3\"";
    let mut command = Command::new("sh");
    isolated(&mut command)
        .env("GIT_LFS_SKIP_SMUDGE", "1")
        .args(["-c", clone, "clone", branch, url])
        .arg(directory);
    run(&mut command, b"");
    let proxy = format!("http.{origin}.proxy");
    let steps: [&[&str]; 6] = [
        &["config", "user.name", "bitbucket-pipelines"],
        &["config", "user.email", "commits-noreply@bitbucket.org"],
        &["config", "push.default", "current"],
        // Right inside the step, but not inside a pipe's container: a pipe must name the proxy itself.
        &["config", &proxy, "http://localhost:29418/"],
        &["remote", "set-url", "origin", origin],
        &["reflog", "expire", "--expire=all", "--all"],
    ];
    for step in steps {
        run(git().arg("-C").arg(directory).args(step), b"");
    }
    let exclude = directory.join(".git/info/exclude");
    let mut exclude =
        std::fs::File::options().append(true).create(true).open(exclude).expect("the exclude file");
    exclude.write_all(b".bitbucket/pipelines/generated\n").expect("the exclude file takes a line");
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777)).expect("the clone's mode");
}

fn header(branch: &str, time: usize, message: &str) -> String {
    let who = format!("Ada <ada@example.com> {time} +0000");
    format!("commit refs/heads/{branch}\nauthor {who}\ncommitter {who}\ndata {}\n{message}\n", message.len())
}

fn git() -> Command {
    let mut command = Command::new("git");
    isolated(&mut command);
    command
}

/// Keeps the settings of whoever runs the tests out of them.
fn isolated(command: &mut Command) -> &mut Command {
    command
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env_remove("GIT_DIR")
        .env_remove("http_proxy")
}

fn run(command: &mut Command, input: &[u8]) -> Vec<u8> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("git can be started");
    // A git that fails early closes its input; what it says then is in its output.
    let _ = child.stdin.take().expect("a piped standard input").write_all(input);
    let output = child.wait_with_output().expect("git's output");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
