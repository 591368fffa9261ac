//! What a large model takes on its way by SSH.

use super::ssh::training;
use super::tree;
use super::workspace::entries;
use crate::local_machine::{ended, exists, spec};
use crate::ssh_server::{Server, installed};
use crate::support::memory_kib;
use std::fs;
use trainspot_protocol::ExitReason;
use trainspot_protocol::FileSelection;

/// In a process of its own, where nothing else takes memory.
#[tokio::test]
async fn a_large_model_comes_whole_and_takes_no_memory() {
    if !installed() {
        return;
    }
    let mut alone = tokio::process::Command::new(std::env::current_exe().unwrap());
    alone.args(["--exact", "link::memory::alone", "--ignored", "--nocapture"]);
    let output = alone.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
#[ignore = "started by the test before it"]
async fn alone() {
    const SECRET: &str = "a-secret-of-the-training-5f1c";
    if !installed() {
        return;
    }
    let server = Server::new();
    let command = "mkdir model; head -c 220000000 /dev/urandom > model/large; echo $SECRET | wc -c; touch ready; sleep 1";
    let mut spec = spec(command);
    spec.environment.insert("SECRET".to_owned(), SECRET.into());
    let agent = training(server.machine().await, spec).await;
    exists(server.home().work().join("ready")).await;
    assert_eq!(naming(SECRET), Vec::<String>::new());
    assert_eq!(ended(&agent).await.reason, ExitReason::Exited(0));
    assert_eq!(fs::read(server.home().log()).unwrap(), format!("{}\n", SECRET.len() + 1).as_bytes());

    let clone = server.folder.path().join("clone");
    fs::create_dir(&clone).unwrap();
    let wanted = FileSelection { required: vec!["model".to_owned()], ..FileSelection::default() };
    let before = memory_kib("self", "VmRSS").unwrap();
    agent.fetch(&wanted, &clone, "fetching").await.unwrap();
    let took = memory_kib("self", "VmHWM").unwrap().saturating_sub(before);
    assert!(took < 30 << 10, "fetching took {took} KiB");
    assert_eq!(tree(&clone.join("model")), tree(&server.home().work().join("model")));
    agent.send(&clone, entries(&clone), "sending").await.unwrap();
    let took = memory_kib("self", "VmHWM").unwrap().saturating_sub(before);
    assert!(took < 30 << 10, "fetching and sending took {took} KiB");
}

/// The processes that have this in their arguments.
fn naming(text: &str) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let arguments = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let arguments = arguments.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    arguments.filter(|arguments| arguments.contains(text)).collect()
}
