//! What clients may do to the supervisor, and what it keeps from others: secrets.

use crate::local_machine::{Rig, ended, exists, spec};
use crate::support::{patience, processes_with};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use trainspot_protocol::{AgentCommand, CommandSpec, ExitReason};

/// Its path may be longer than a socket's address.
fn connect(rig: &Rig) -> UnixStream {
    let folder = std::fs::File::open(rig.home().run()).unwrap();
    let path = format!("/proc/self/fd/{}/socket", std::os::fd::AsRawFd::as_raw_fd(&folder));
    UnixStream::connect(Path::new(&path)).unwrap()
}

/// What no pipe says: bytes at random, halves of a request, requests with a byte changed.
fn nonsense(random: &mut fastrand::Rng) -> Vec<u8> {
    let good = br#"{"owner":"evil","wish":"end"}"#;
    match random.u8(0..4) {
        0 => {
            let mut bytes = vec![0; random.usize(0..4000)];
            random.fill(&mut bytes);
            bytes
        }
        1 => good[..random.usize(0..good.len())].to_vec(),
        2 => [&good[..random.usize(1..good.len() - 1)], b"\n"].concat(),
        _ => [b"{\"owner\":\"".repeat(random.usize(1..50)), b"\n".to_vec()].concat(),
    }
}

#[tokio::test]
async fn clients_that_stay_silent_or_talk_nonsense_delay_nothing() {
    let limited = CommandSpec { max_runtime: Duration::from_secs(2), ..spec("sleep 300") };
    let (rig, agent) = Rig::training(3, limited).await;
    let silent: Vec<_> = (0..50).map(|_| connect(&rig)).collect();
    let mut random = fastrand::Rng::with_seed(11);
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    while start.elapsed() < Duration::from_millis(1500) {
        for _ in 0..20 {
            // It may be refused while it is still talking.
            connect(&rig).write_all(&nonsense(&mut random)).ok();
        }
        let asked = Instant::now();
        agent.ask(AgentCommand::Heartbeat).await.unwrap();
        slowest = slowest.max(asked.elapsed());
    }
    assert!(slowest < patience(Duration::from_secs(1)), "{slowest:?}");
    let exit = ended(&agent).await;
    assert_eq!(exit.reason, ExitReason::TimedOut);
    assert!(exit.seconds < patience(Duration::from_secs(3)).as_secs_f64(), "{}", exit.seconds);
    let silent_too: Vec<_> = (0..50).map(|_| connect(&rig)).collect();
    rig.assert_gone_within(Duration::from_secs(5), &[]).await;
    drop((silent, silent_too));
}

#[tokio::test]
async fn secrets_are_in_the_trainings_environment_and_nowhere_else() {
    const SECRET: &str = "s3cr3t-9f2c41d0";
    let mut spec = spec("echo ${#TOKEN} ${TRAINSPOT_HOME##*/} > length; sleep 300");
    spec.environment.insert("TOKEN".to_owned(), SECRET.into());
    spec.environment.insert("TRAINSPOT_HOME".to_owned(), "/elsewhere".into());
    let (rig, _agent) = Rig::training(20, spec).await;
    exists(rig.home().work().join("length")).await;
    let mut request = connect(&rig);
    request.write_all(format!("{{\"owner\":\"test\",\"wish\":{{\"{SECRET}\":1}}}}\n").as_bytes()).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let length = std::fs::read_to_string(rig.home().work().join("length")).unwrap();
    // The mark by which its processes are found is not the user's to set.
    assert_eq!(length, format!("{} {}\n", SECRET.len(), rig.machine.id));
    for file in walkdir::WalkDir::new(rig.home().path()).into_iter().flatten() {
        let bytes = std::fs::read(file.path()).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "{} holds it", file.path().display());
    }
    for process in processes_with(SECRET) {
        assert!(!process.contains(SECRET), "{process}: in its arguments");
        assert!(process.contains("sleep 300") || process.contains("bash"), "{process}: in its environment");
    }
    assert_eq!(rig.agents("supervise").len(), 1);
    rig.end().await;
}
