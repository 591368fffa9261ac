//! A scene for whole runs: a fake Bitbucket, a clone as Pipelines makes it, and the pipe run in it.

use fake_bitbucket::{ACCESS_TOKEN, BareRepository, FakeBitbucket, Options, Recorded};
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trainspot_base::mutex::lock;

/// What a pipe may use of Bitbucket.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Access {
    /// An access token, and the repository's address itself.
    Token,
    /// Nothing but the proxy of Pipelines.
    Proxy,
}

/// A repository, its clone, and what a step's environment says.
pub(crate) struct Scene {
    pub(crate) folder: TempDir,
    pub(crate) remote: BareRepository,
    pub(crate) bitbucket: FakeBitbucket,
    variables: BTreeMap<String, String>,
    /// Requests before the run: those of the clone.
    before: usize,
    /// A user that is nobody special, and nobody else's: processes of one user see each other.
    pub(crate) somebody: u32,
}

/// The user of the next scene.
static NEXT_SOMEBODY: AtomicU32 = AtomicU32::new(54_321);

impl Scene {
    /// A repository with some history and these files, cloned for a step that has this access.
    pub(crate) fn new(access: Access, files: &[(&str, &str)]) -> Self {
        Self::with(access, files, Options::default())
    }

    /// The same, with another kind of Bitbucket.
    pub(crate) fn with(access: Access, files: &[(&str, &str)], options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let remote = BareRepository::create(&folder.path().join("forest.git"), 60);
        if !files.is_empty() {
            let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
            remote.commit("main", "add the training", &files);
        }
        let repository = Some(remote.path().to_owned());
        let bitbucket = FakeBitbucket::start_with(Options { repository, ..options });
        let somebody = NEXT_SOMEBODY.fetch_add(1, Ordering::Relaxed);
        let mut scene = Self { folder, remote, bitbucket, variables: BTreeMap::new(), before: 0, somebody };
        std::fs::create_dir(scene.scratch()).unwrap();
        scene.bitbucket.clone_as_pipelines("main", &scene.clone());
        scene.before = scene.bitbucket.requests().len();
        scene.set_step(access);
        scene
    }

    fn set_step(&mut self, access: Access) {
        let commit = self.remote.head("main").unwrap();
        let own = [
            ("CI", "true".to_owned()),
            ("CLOUD", "local".to_owned()),
            ("PATH", std::env::var("PATH").unwrap()),
            ("TMPDIR", self.scratch().display().to_string()),
            ("BITBUCKET_CLONE_DIR", self.clone().display().to_string()),
            ("BITBUCKET_BRANCH", "main".to_owned()),
            ("BITBUCKET_COMMIT", commit),
            ("BITBUCKET_WORKSPACE", self.bitbucket.workspace().to_owned()),
            ("BITBUCKET_REPO_SLUG", self.bitbucket.slug().to_owned()),
            ("BITBUCKET_BUILD_NUMBER", "7".to_owned()),
            ("BITBUCKET_PIPELINE_UUID", "{11111111-1111-1111-1111-111111111111}".to_owned()),
            ("BITBUCKET_STEP_UUID", "{22222222-2222-2222-2222-222222222222}".to_owned()),
            // The clone has no bitbucket-pipelines.yml that tells.
            ("STEP_MAX_TIME", "12h".to_owned()),
            ("BITBUCKET_GIT_HTTP_ORIGIN", self.bitbucket.http_origin()),
            ("PIPELINES_PROXY", self.bitbucket.proxy_url()),
            ("BITBUCKET_API_URL", self.bitbucket.api_url()),
        ];
        self.variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
        if access == Access::Token {
            self.set("BITBUCKET_ACCESS_TOKEN", ACCESS_TOKEN);
            // The real one is plain HTTP without a port; with a token it is upgraded to HTTPS, which a test
            // has not.
            self.git(&["remote", "set-url", "origin", &self.bitbucket.git_url()]);
            self.set("BITBUCKET_GIT_HTTP_ORIGIN", &self.bitbucket.git_url());
        } else {
            self.set("BITBUCKET_API_URL", "http://api.bitbucket.org/2.0");
        }
    }

    /// Sets a variable of the step.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The clone.
    pub(crate) fn clone(&self) -> PathBuf {
        self.folder.path().join("build")
    }

    /// Where short-lived files go.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// The pipe, ready to be started.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainspot"));
        command.env_clear().envs(&self.variables).current_dir(self.clone());
        // Of no effect there, which would be told.
        if self.variables.get("ACTION").is_some_and(|action| action != "train") {
            command.env_remove("STEP_MAX_TIME");
        }
        command
    }

    /// Runs the pipe to its end.
    pub(crate) fn run(&self) -> Run {
        Run::from(self.command().output().unwrap())
    }

    /// The pipe, ready to be started by a user that is nobody special, where this one may do that; else by
    /// this one.
    pub(crate) fn as_somebody(&self) -> Command {
        let command = self.command();
        if !rustix::process::geteuid().is_root() {
            return command;
        }
        std::fs::set_permissions(self.folder.path(), Permissions::from_mode(0o755)).unwrap();
        for item in [self.clone(), self.scratch()].iter().flat_map(walkdir::WalkDir::new).flatten() {
            lchown(item.path(), Some(self.somebody), Some(self.somebody)).unwrap();
        }
        // The program itself may stand where nobody else can go.
        let program = self.folder.path().join("trainspot");
        std::fs::copy(env!("CARGO_BIN_EXE_trainspot"), &program).unwrap();
        let variables = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut other = Command::new(program);
        other.env_clear().envs(variables).current_dir(self.clone()).uid(self.somebody).gid(self.somebody);
        other
    }

    /// Starts the pipe.
    pub(crate) fn start(&self) -> Child {
        self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs git in the clone.
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let output = Command::new("git").arg("-C").arg(self.clone()).args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What the runs so far asked of Bitbucket.
    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.bitbucket.requests().split_off(self.before)
    }

    /// The branch that a run makes by default.
    pub(crate) fn branch(&self) -> String {
        format!("trainspot/main-{}", &self.remote.head("main").unwrap()[..7])
    }

    /// The subjects on a branch of the remote that `main` does not have, newest first.
    pub(crate) fn subjects(&self, branch: &str) -> Vec<String> {
        let log = self.remote.git(&["log", "--format=%s", &format!("main..{branch}")]);
        log.lines().map(str::to_owned).collect()
    }

    /// Fails unless nothing of a run is left on this machine: no process, no short-lived file.
    pub(crate) fn assert_nothing_left(&self) {
        let left: Vec<_> = walkdir::WalkDir::new(self.scratch()).min_depth(1).into_iter().flatten().collect();
        assert!(left.is_empty(), "files are left: {left:?}");
        let processes = processes_with(self.scratch().to_str().unwrap());
        assert!(processes.is_empty(), "processes are left: {processes:?}");
    }
}

/// The processes whose command line or environment names `text`, this one excepted.
pub(crate) fn processes_with(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let words = [read("cmdline"), read("environ")].concat();
        if pid != std::process::id() && String::from_utf8_lossy(&words).contains(text) {
            found.push(format!("{pid}: {}", String::from_utf8_lossy(&read("cmdline")).replace('\0', " ")));
        }
    }
    found
}

/// The machines' agents of one verb, of machines whose home is in `place`.
pub(crate) fn agents(place: &str, verb: &str) -> Vec<Pid> {
    let found = processes_with(place);
    let found = found.iter().filter(|process| process.contains(&format!("agent {verb} --home {place}")));
    found.map(|process| Pid::from_raw(process.split(':').next().unwrap().parse().unwrap()).unwrap()).collect()
}

/// How a run ended, and what it said, without colours.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    /// All bytes that it printed, colours included, on standard output and on standard error.
    pub(crate) raw: [String; 2],
    pub(crate) out: String,
    pub(crate) log: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let plain = |bytes: &[u8]| Self::plain(&String::from_utf8_lossy(bytes));
        let raw = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        Self { code: output.status.code(), raw, out: plain(&output.stdout), log: plain(&output.stderr) }
    }
}

/// Fails unless a run was refused with code 2, in these words, and before its training, which would have said
/// `marker`.
pub(crate) fn assert_refused(marker: &str, run: Run, words: &[&str]) {
    let run = run.expect(2);
    assert!(!run.out.contains(marker), "it trained: {}", run.out);
    for word in words {
        assert!(run.out.contains(word), "{word} in {}", run.out);
    }
}

impl Run {
    /// Text without colours.
    pub(crate) fn plain(text: &str) -> String {
        ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[36m", "\x1b[0m"]
            .iter()
            .fold(text.to_owned(), |text, colour| text.replace(colour, ""))
    }

    /// Fails unless the run ended with this code.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\n{}\n{}", self.log, self.out);
        self
    }

    /// The last line on standard output.
    pub(crate) fn last_line(&self) -> &str {
        self.out.lines().last().unwrap_or_default()
    }
}

/// Makes sure of a program of Debian's, installing its package where it is missing; the reason where it
/// cannot be had.
pub(crate) fn installed(program: &str, package: &str) -> Result<(), String> {
    // One test at a time asks, and the others find what it has installed.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = lock(&ONE);
    if exists(program) {
        return Ok(());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new(root.join("scripts/apt.sh")).arg(package).output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    if exists(program) { Ok(()) } else { Err(format!("there is no {program}: {}", why.trim_end())) }
}

/// A limit for something that takes no longer than `limit` on a machine that has nothing else to do.
///
/// A machine that is busy is given more, by how much slower it starts a program than one that is not.
pub(crate) fn patience(limit: Duration) -> Duration {
    const STARTS: u32 = 5;
    /// What a start of this program takes where nothing else runs; more than it does on most machines.
    const USUAL_START: Duration = Duration::from_millis(15);
    let start = Instant::now();
    for _ in 0..STARTS {
        let help = Command::new(env!("CARGO_BIN_EXE_trainspot")).arg("--help").output();
        assert!(help.unwrap().status.success());
    }
    let slowness = start.elapsed().as_secs_f64() / (USUAL_START * STARTS).as_secs_f64();
    // A moment says little of all the time before.
    limit.mul_f64(3.0 * slowness.clamp(1.0, 30.0))
}

/// Whether what began at `start` takes longer than [`patience`] allows.
pub(crate) fn is_late(start: Instant, limit: Duration) -> bool {
    start.elapsed() > limit && start.elapsed() > patience(limit)
}

/// A figure of the kernel's about a process's memory, such as `VmHWM`, in KiB. None once the process is over.
pub(crate) fn memory_kib(process: impl std::fmt::Display, figure: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Whether a file is there.
pub(crate) fn exists(path: impl AsRef<Path>) -> bool {
    path.as_ref().symlink_metadata().is_ok()
}

/// Tells something that is to be seen of a test that passes, too: what it counted.
pub(crate) fn say(text: &str) {
    // Not `eprintln!`, which is not shown then.
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}
