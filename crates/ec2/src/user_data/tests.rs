use super::*;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use tempfile::TempDir;

/// Shorter than the limits of the guard that a test does not mean, however busy the host is.
const LONGEST_WAIT: Duration = Duration::from_secs(50);

const LEASE: Lease =
    Lease { boot: Duration::from_mins(10), grace: Duration::from_mins(10), life: Duration::from_hours(25) };

fn written() -> String {
    user_data(&KeyPair::new().unwrap(), &KeyPair::new().unwrap(), LEASE).unwrap()
}

#[test]
fn it_is_small_and_the_guard_comes_first() {
    let text = written();
    // EC2 takes 16 KiB.
    assert!(text.len() < 8 << 10, "{} bytes", text.len());
    let config: serde_json::Value =
        serde_json::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
    assert_eq!(config.as_object().unwrap().keys().next().unwrap(), "bootcmd");
    let guard: Vec<&str> =
        config["bootcmd"][0].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(guard[..2], ["sh", "-c"]);
    assert_eq!(guard[4..], ["600", "600", "90000", "/run/trainspot"]);
    for key in ["ed25519_private", "ed25519_public"] {
        assert!(config["ssh_keys"][key].as_str().unwrap().ends_with('\n'), "{key}");
    }
    assert!(config["ssh_authorized_keys"][0].as_str().unwrap().starts_with("ssh-ed25519 "));
}

/// The script as a machine runs it, but for what powers off: `systemctl` leaves a file and ends the guard.
struct Guarded {
    folder: TempDir,
    process: Child,
    started: Instant,
}

impl Guarded {
    /// `works`: whether `systemctl` does; the kernel's own switch is the last resort.
    fn start(boot: u32, grace: u32, life: u32, works: bool) -> Self {
        Self::running(GUARD_SCRIPT, boot, grace, life, works)
    }

    fn running(script: &str, boot: u32, grace: u32, life: u32, works: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let off = folder.path().join("off");
        let success = format!("#!/bin/sh\necho \"$0 $*\" >{}\nkill -9 $PPID\n", off.display());
        program(&bin, "systemctl", if works { &success } else { "#!/bin/sh\nexit 1\n" });
        program(&bin, "poweroff", "#!/bin/sh\nexit 1\n");
        assert_eq!(script.matches("/proc/sysrq-trigger").count(), 1);
        let last_resort = format!("{}; kill -9 $$", folder.path().join("sysrq").display());
        let console = folder.path().join("console");
        let script = script.replace("/proc/sysrq-trigger", &last_resort).replace("sleep 5", "sleep 1");
        let script = script.replace("/dev/console", console.to_str().unwrap());
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let process = Command::new("sh")
            .args(["-c", &script, &script])
            .args([boot, grace, life].map(|seconds| seconds.to_string()))
            .arg(folder.path().join("run"))
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { folder, process, started: Instant::now() }
    }

    fn write(&self, file: &str, content: &str) {
        let run = self.folder.path().join("run");
        while !run.exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::write(run.join(file), content).unwrap();
    }

    fn is_on(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Waits until the machine is off: after how long, and what its last words were.
    fn off(mut self) -> (f64, String) {
        while self.is_on() {
            assert!(self.started.elapsed() < LONGEST_WAIT, "it never powers off");
            std::thread::sleep(Duration::from_millis(20));
        }
        let seconds = self.started.elapsed().as_secs_f64();
        let words = ["console", "off", "sysrq"]
            .map(|file| fs::read_to_string(self.folder.path().join(file)).unwrap_or_default());
        (seconds, words.concat())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn program(folder: &Path, name: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn without_an_agent_it_powers_off_after_the_boot_deadline() {
    let (seconds, words) = Guarded::start(2, 60, 60, true).off();
    assert!(seconds >= 1.0, "{seconds}");
    assert!(
        words.contains("no agent within 2 s") && words.contains("systemctl poweroff --force --force"),
        "{words}"
    );
}

#[test]
fn a_living_agent_keeps_it_on_and_a_silent_one_for_the_grace() {
    let mut guard = Guarded::start(2, 2, 60, true);
    for beat in 0..12 {
        guard.write("alive", &format!("{beat}\n"));
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(guard.is_on());
    guard.write("alive", "12\n");
    let silent = guard.started.elapsed().as_secs_f64();
    let (seconds, words) = guard.off();
    assert!(seconds - silent >= 1.0, "{seconds}, {silent}");
    assert!(words.contains("no sign of the agent for 2 s"), "{words}");
}

/// A file of the training's user must not hold the guard up: neither one without an end nor one that nobody
/// writes to.
#[test]
fn nothing_that_the_training_makes_of_the_sign_of_life_blocks_it() {
    let endless = |alive: &Path| fs::File::create(alive).unwrap().set_len(1 << 40).unwrap();
    let pipe = |alive: &Path| assert!(Command::new("mkfifo").arg(alive).status().unwrap().success());
    let link = |alive: &Path| std::os::unix::fs::symlink("/dev/zero", alive).unwrap();
    for make in [&endless as &dyn Fn(&Path), &pipe, &link] {
        let guard = Guarded::start(60, 60, 3, true);
        guard.write("heard", "");
        make(&guard.folder.path().join("run/alive"));
        assert!(guard.off().1.contains("it has lived for 3 s"));
    }
}

#[test]
fn it_powers_off_at_once_when_told() {
    let guard = Guarded::start(60, 60, 60, true);
    guard.write("alive", "1\n");
    guard.write("end", "");
    let (_, words) = guard.off();
    assert!(words.contains("no longer needed"), "{words}");
}

#[test]
fn no_life_is_longer_than_the_lease() {
    let guard = Guarded::start(60, 60, 3, true);
    guard.write("alive", "1\n");
    let (seconds, words) = guard.off();
    assert!(seconds >= 2.0, "{seconds}");
    assert!(words.contains("it has lived for 3 s"), "{words}");
}

#[test]
fn the_kernel_is_the_last_resort() {
    let (_, words) = Guarded::start(1, 60, 60, false).off();
    assert!(words.ends_with("o\n"), "{words}");
}

#[test]
fn it_outlives_the_signals_of_a_shutdown_that_hangs() {
    let mut guard = Guarded::start(3, 60, 60, true);
    // Once the guard heeds signals as it will.
    guard.write("ready", "");
    for signal in ["TERM", "HUP", "INT"] {
        let pid = guard.process.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(guard.is_on());
    assert!(guard.off().1.contains("no agent"));
}

/// A training may use up every process that there can be. A shell that cannot fork ends, as it does at a file
/// that it cannot read: the guard starts anew in its place, and remembers its age.
#[test]
fn it_outlives_a_lack_of_processes() {
    let mut guard =
        Guarded::running(&GUARD_SCRIPT.replace("sleep 1\n", ". /nowhere/at/all\n"), 3, 60, 60, true);
    std::thread::sleep(Duration::from_secs(1));
    assert!(guard.is_on());
    let (seconds, words) = guard.off();
    assert!(seconds >= 2.0, "{seconds}");
    assert!(words.contains("no agent within 3 s"), "{words}");
}
