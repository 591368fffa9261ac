//! What a machine runs of an archive, by the shell's own words.

use super::SHELL_SCRIPT;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

fn program(path: &Path, text: &str) {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// A machine that has what the runner needs, and gets an archive whose `start.sh` says so; with this
/// checksum.
fn started(sha256: Option<&str>) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for name in ["java", "cloud-init", "retry"] {
        program(&bin.join(name), "");
    }
    program(&bin.join("git"), "echo git version 2.43.0");
    program(&bin.join("curl"), &format!("exec cat {}/archive", folder.path().display()));
    program(&bin.join("start.sh"), "echo the archive runs");
    let tar = ["-czf", "archive", "bin/start.sh"];
    assert!(Command::new("tar").args(tar).current_dir(folder.path()).status().unwrap().success());
    std::fs::remove_file(bin.join("start.sh")).unwrap();
    let own = Command::new("sha256sum").arg(folder.path().join("archive")).output().unwrap();
    let own = String::from_utf8(own.stdout).unwrap()[..64].to_owned();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", SHELL_SCRIPT]).env("PATH", path).env("HOME", folder.path());
    shell.env("RUNNER_ARCHIVE", "https://example.com/runner.tar.gz");
    for name in ["ACCOUNT_UUID", "RUNNER_UUID", "OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET"] {
        shell.env(name, "x");
    }
    if let Some(sha256) = sha256 {
        shell.env("RUNNER_ARCHIVE_SHA256", sha256.replace("OWN", &own));
    }
    shell.output().unwrap()
}

#[test]
fn a_replaced_archive_is_not_unpacked() {
    for other in ["0".repeat(64), "f".repeat(64)] {
        let output = started(Some(&other));
        let (said, told) =
            (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert!(!output.status.success() && !said.contains("the archive runs"), "{said}{told}");
        let why = format!("ERROR https://example.com/runner.tar.gz does not have the SHA-256 {other}");
        assert!(told.contains(&why), "{told}");
    }
}

#[test]
fn the_archive_that_was_asked_for_runs() {
    for sha256 in [None, Some("OWN")] {
        let output = started(sha256);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("the archive runs"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
}
