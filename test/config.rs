//! Wrong environments, and the exact words that a user reads for each.

mod aws;
mod runner;
mod wrong;

use std::process::Command;

/// A good environment to spoil.
const GOOD: &[(&str, &str)] = &[("CLOUD", "local"), ("TRAIN_COMMAND", "true"), ("OUTPUTS", "model.bin")];

/// What is changed in [`GOOD`] (an empty value means missing), and the lines after the first.
type Case = (&'static [(&'static str, &'static str)], &'static [&'static str]);

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

#[test]
fn every_wrong_environment_is_told_in_full() {
    all_told(&[], wrong::CASES);
    assert!(wrong::CASES.len() >= 60, "{} cases", wrong::CASES.len());
}

/// Spoils [`GOOD`], changed to `base`, in each of these ways.
fn all_told(base: &[(&str, &str)], cases: &[Case]) {
    for (changes, lines) in cases {
        let plural = if lines.len() == 1 { "" } else { "s" };
        let count = lines.len();
        let lines = format!("  {}\n", lines.join("\n  "));
        let expected =
            format!("✖ the configuration has {count} mistake{plural}; nothing was started\n{lines}");
        assert_eq!(told(&[base, changes].concat()), (Some(2), expected), "{changes:?}");
    }
}
