//! The agent's own program takes what `trainspot agent` takes.

#![allow(clippy::unwrap_used, missing_docs)]

use std::process::{Command, Output};

fn agent(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainspot-agent")).args(arguments).output().unwrap()
}

#[test]
fn the_version_is_the_pipes() {
    let output = agent(&["--version"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_verb_is_the_same_with_and_without_the_word_agent() {
    let home = std::env::temp_dir().join("trainspot-agent-program-test").display().to_string();
    for arguments in [&["nothing"][..], &[], &["ask", "--home", &home]] {
        let with_word = agent(&[&["agent"], arguments].concat());
        let without = agent(arguments);
        assert_eq!(with_word.status.code(), without.status.code());
        assert_ne!(with_word.status.code(), Some(0));
        assert!(!with_word.stderr.is_empty() && with_word.stdout.is_empty());
        assert_eq!(with_word.stderr, without.stderr);
    }
}
