//! Wrong environments, and the exact words that a user reads for each: they are in `config/snapshots/`.

mod aws;
mod detached;
mod runner;
mod wrong;

use std::fmt::Write as _;
use std::process::Command;

/// A good environment to spoil.
const GOOD: &[(&str, &str)] = &[("CLOUD", "local"), ("TRAIN_COMMAND", "true"), ("OUTPUTS", "model.bin")];

/// What is changed in [`GOOD`]; an empty value means missing.
type Changes = &'static [(&'static str, &'static str)];

fn told(changes: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_trainspot"))
        .env_clear()
        .envs(GOOD.iter().copied())
        .envs(changes.iter().copied())
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "something was started");
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text.replace("\x1b[31m", "").replace("\x1b[0m", ""))
}

/// Spoils [`GOOD`], changed to `base`, in each of these ways. Returns each way, and the mistakes that the
/// pipe tells of it.
fn told_of_each(base: &[(&str, &str)], wrong: &[Changes]) -> String {
    let mut text = String::new();
    for changes in wrong {
        let (code, told) = told(&[base, changes].concat());
        let (heading, mistakes) = told.split_once('\n').unwrap();
        let count = mistakes.lines().count();
        let plural = if count == 1 { "" } else { "s" };
        let expected = format!("✖ the configuration has {count} mistake{plural}; nothing was started");
        assert_eq!((code, heading), (Some(2), expected.as_str()), "{changes:?}");
        let changes: Vec<_> = changes.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        writeln!(text, "{}\n{mistakes}", changes.join(" ")).unwrap();
    }
    text
}
