//! A machine that is reached by SSH: through OpenSSH's own server, and whatever may go wrong on the way.

use super::tree;
use super::workspace::{entries, odd};
use crate::local_machine::{beating, ended, exists, spec};
use crate::ssh_server::{Server, free_port, installed, packed, supervise};
use crate::support::{agents, is_late, patience};
use rustix::process::{Signal, kill_process};
use std::cell::Cell;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::{Duration, Instant};
use trainspot_base::error::{Kind, Result};
use trainspot_compute::link::ssh::{KeyPair, SshLink, SshTarget};
use trainspot_compute::link::{Agent, AskError};
use trainspot_protocol::FileSelection;
use trainspot_protocol::{AgentCommand, CommandSpec, CommandState, ExitReason};
use trainspot_transfer::HeldFiles;

/// How a login that must fail fails, and how soon.
async fn refused(target: SshTarget, patience: u64) -> (String, Duration) {
    let start = Instant::now();
    let error = SshLink::open(target, Duration::from_secs(patience)).await.unwrap_err();
    assert_eq!(error.exit_kind(), Kind::Machine);
    (error.render(), start.elapsed())
}

pub(super) async fn training(link: SshLink, spec: CommandSpec) -> Agent<SshLink> {
    let agent = Agent::new(link, "test");
    agent.ask(AgentCommand::Start(Box::new(spec))).await.unwrap();
    agent
}

#[tokio::test]
async fn only_the_machine_that_was_meant_is_talked_to() {
    if !installed() {
        return;
    }
    let server = Server::new();
    server.link().await;
    let other = KeyPair::new().unwrap();

    let target = SshTarget { host_key: other.public_openssh().unwrap(), ..server.target() };
    let (error, took) = refused(target, 30).await;
    assert!(error.contains("its host key is not the one that was made for this machine"), "{error}");
    assert!(error.contains("\nNext: somebody else answers at that address"), "{error}");
    assert!(took < patience(Duration::from_secs(5)), "{took:?}");

    let target = SshTarget { client: other, ..server.target() };
    let user = target.user.clone();
    let (error, took) = refused(target, 2).await;
    assert!(error.starts_with("cannot log in to the machine by SSH within 2.0s: 127.0.0.1:"), "{error}");
    assert!(error.contains(&format!("it does not let '{user}' in with the run's key")), "{error}");
    assert!(Duration::from_secs(2) <= took && took < patience(Duration::from_secs(4)), "{took:?}");

    let (error, _) = refused(SshTarget { port: free_port(), ..server.target() }, 1).await;
    assert!(error.contains("Connection refused"), "{error}");
    assert!(error.contains("\nNext: check that the security group"), "{error}");
}

#[tokio::test]
async fn the_address_that_leads_to_the_machine_is_found() {
    if !installed() {
        return;
    }
    let server = Server::new();
    let [nobody, somebody, machine] = [2, 3, 1].map(|last| Ipv4Addr::new(127, 0, 0, last));
    let mut other = Server::at(somebody, server.target().port, "");
    other.start();
    let addresses = [nobody, somebody, machine].map(IpAddr::V4).to_vec();
    let link =
        SshLink::open(SshTarget { addresses, ..server.target() }, Duration::from_secs(10)).await.unwrap();
    let mut lines = Vec::new();
    if rustix::process::getuid().is_root() {
        link.run_as_root("echo $HOME", |line| lines.push(line.to_owned())).await.unwrap();
        assert_eq!(lines, [server.folder.path().join("home").display().to_string()]);
    }
}

#[tokio::test]
async fn a_server_that_comes_up_late_is_waited_for() {
    if !installed() {
        return;
    }
    let mut server = Server::at(Ipv4Addr::LOCALHOST, free_port(), "");
    let target = server.target();
    let start = Instant::now();
    let (link, ()) = tokio::join!(SshLink::open(target, Duration::from_secs(20)), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.start();
    });
    link.unwrap();
    let took = start.elapsed();
    assert!(Duration::from_secs(2) <= took && took < patience(Duration::from_secs(5)), "{took:?}");
}

#[tokio::test]
async fn the_agent_is_sent_once_and_its_watch_outlives_the_connection() {
    if !installed() {
        return;
    }
    let server = Server::new();
    let home = server.home().path().display().to_string();
    let link = server.machine().await;
    let agent = |server: &Server| {
        let entries = fs::read_dir(server.base()).unwrap().map(Result::unwrap);
        let mut found: Vec<_> =
            entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with("agent-")).collect();
        assert_eq!(found.len(), 1);
        found.remove(0).metadata().unwrap().ino()
    };
    let (file, watch) = (agent(&server), agents(&home, "supervise"));
    assert_eq!(watch.len(), 1);
    let error = Agent::new(server.link().await, "test").ask(AgentCommand::Heartbeat).await.unwrap_err();
    assert!(
        matches!(&error, AskError::NoAnswer(error) if error.render() == "no agent was installed on the machine")
    );

    drop(link);
    server.signal_connections(Signal::KILL);
    let link = server.machine().await;
    assert_eq!((agent(&server), agents(&home, "supervise")), (file, watch));
    assert_eq!(
        Agent::new(link, "test").ask(AgentCommand::Heartbeat).await.unwrap().state,
        CommandState::Idle
    );
}

#[tokio::test]
async fn an_agent_that_cannot_start_says_why() {
    if !installed() {
        return;
    }
    let server = Server::new();
    let link = server.link().await;
    let error = link.install(packed().await, &supervise()[..1]).await.unwrap_err().render();
    assert!(error.contains("cannot start the agent on the machine: "), "{error}");
    assert!(error.contains("--ending is missing"), "{error}");

    fs::remove_dir_all(server.base()).unwrap();
    fs::write(server.base(), "in the way").unwrap();
    let error = link.install(packed().await, &supervise()).await.unwrap_err().render();
    assert!(error.contains("the machine cannot take it: mkdir: "), "{error}");
}

#[tokio::test]
async fn odd_names_arrive_and_failures_come_with_their_words() {
    if !installed() {
        return;
    }
    let server = Server::new();
    let agent = Agent::new(server.machine().await, "test");
    let clone = server.folder.path().join("clone");
    fs::create_dir(&clone).unwrap();
    odd(&clone);
    agent.send(&clone, entries(&clone), "sending").await.unwrap();
    assert_eq!(tree(&server.home().work()), tree(&clone));

    let wanted = FileSelection { required: vec!["../run/log".to_owned()], ..FileSelection::default() };
    let error = agent.fetch(&wanted, &clone, "").await.unwrap_err().render();
    assert!(error.contains("the pattern '../run/log' leads out of the folder"), "{error}");
    let error = agent
        .fetch_checkpoint(7, &["**".to_owned()], HeldFiles::default(), &clone)
        .await
        .unwrap_err()
        .render();
    assert!(error.starts_with("the machine cannot send the files: "), "{error}");
}

#[tokio::test]
async fn what_is_not_wanted_any_more_ends() {
    if !installed() {
        return;
    }
    let server = Server::new();
    let home = server.home().path().display().to_string();
    let agent = training(server.machine().await, spec("sleep 1000")).await;
    let connections = server.processes().len();
    {
        let mut offset = 0;
        let mut take = |_: &[u8]| {};
        let follow = agent.follow(&mut offset, &mut take);
        assert!(tokio::time::timeout(Duration::from_secs(2), follow).await.is_err());
    }
    let start = Instant::now();
    while !agents(&home, "follow").is_empty() {
        assert!(!is_late(start, Duration::from_secs(5)), "the follower goes on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Its channel was closed, not the connection.
    assert_eq!(server.processes().len(), connections);
    assert_eq!(agent.ask(AgentCommand::Heartbeat).await.unwrap().state, CommandState::Running);
}

#[tokio::test]
async fn files_on_a_connection_that_is_killed_fail_and_go_over_the_next() {
    if !installed() {
        return;
    }
    let server = Server::new();
    let agent = Agent::new(server.machine().await, "test");
    let clone = server.folder.path().join("clone");
    fs::create_dir(&clone).unwrap();
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(1 << 20).collect();
    fs::write(clone.join("large"), noise.repeat(200)).unwrap();
    let killing = async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.signal_connections(Signal::KILL);
        Instant::now()
    };
    let (sent, killed) = tokio::join!(agent.send(&clone, entries(&clone), ""), killing());
    let error = sent.unwrap_err().render();
    assert!(error.contains("the connection to 127.0.0.1:"), "{error}");
    assert!(!is_late(killed, Duration::from_secs(5)), "{:?}", killed.elapsed());
    assert_eq!(tree(&server.home().work()).len(), 0);
    agent.send(&clone, entries(&clone), "").await.unwrap();

    let (back, wanted) = (
        server.folder.path().join("back"),
        FileSelection { required: vec!["large".to_owned()], ..FileSelection::default() },
    );
    fs::create_dir(&back).unwrap();
    let (fetched, killed) = tokio::join!(agent.fetch(&wanted, &back, ""), killing());
    let error = fetched.unwrap_err().render();
    assert!(error.contains("the connection to 127.0.0.1:"), "{error}");
    assert!(!is_late(killed, Duration::from_secs(5)), "{:?}", killed.elapsed());
    assert_eq!(tree(&back).len(), 0);
    agent.fetch(&wanted, &back, "").await.unwrap();
    assert_eq!(tree(&back), tree(&clone));
}

/// Prints numbered lines for some seconds.
const COUNTING: &str =
    "for i in $(seq 1 300); do echo line $i; head -c 20000 /dev/urandom | base64; sleep 0.01; done";

#[tokio::test]
async fn a_log_goes_on_at_its_byte_when_connections_are_killed() {
    if !installed() {
        return;
    }
    let server = Server::new();
    let agent = training(server.machine().await, spec(COUNTING)).await;
    let (mut offset, mut seen, broken) = (0, Vec::new(), Cell::new(0));
    let follow = async {
        loop {
            match agent.follow(&mut offset, &mut |bytes| seen.extend_from_slice(bytes)).await {
                Ok(()) => return,
                Err(error) => {
                    assert!(error.render().contains("the connection to 127.0.0.1:"), "{}", error.render());
                    broken.set(broken.get() + 1);
                }
            }
        }
    };
    let killing = async {
        // A connection that is not open again yet breaks nothing.
        while broken.get() < 5 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            server.signal_connections(Signal::KILL);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! { () = follow => {}, () = killing => {} }
    let log = fs::read(server.home().log()).unwrap();
    assert!(seen == log, "{} bytes of {} are not the log's", seen.len(), log.len());
    assert!(broken.get() >= 3, "{}", broken.get());
    assert_eq!(ended(&agent).await.reason, ExitReason::Exited(0));
}

#[tokio::test]
async fn a_server_that_freezes_is_noticed() {
    if !installed() {
        return;
    }
    let server = Server::new();
    let agent = training(server.machine().await, spec("sleep 1000")).await;
    let mut offset = 0;
    let follow = async {
        let start = Instant::now();
        let error = agent.follow(&mut offset, &mut |_| {}).await.unwrap_err();
        (error.render(), start.elapsed())
    };
    let asking = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // A connection that is lost on the way, while a new one is not.
        server.signal_connections(Signal::STOP);
        let start = Instant::now();
        agent.ask(AgentCommand::Heartbeat).await.unwrap();
        assert!(!is_late(start, Duration::from_secs(8)), "{:?}", start.elapsed());
        // The whole machine.
        server.freeze();
        let start = Instant::now();
        let lost = agent.ask(AgentCommand::Heartbeat).await.unwrap_err();
        assert!(
            matches!(&lost, AskError::NoAnswer(error) if error.render().contains("127.0.0.1:")),
            "{lost:?}"
        );
        assert!(!is_late(start, Duration::from_secs(15)), "{:?}", start.elapsed());
        // And back again.
        server.processes()[..1].iter().for_each(|pid| kill_process(*pid, Signal::CONT).unwrap());
        agent.ask(AgentCommand::Heartbeat).await.unwrap();
    };
    let ((error, took), ()) = tokio::join!(beating_late(&agent, follow), asking);
    assert!(error.contains("the connection to 127.0.0.1:"), "{error}");
    assert!(Duration::from_secs(30) <= took && took < patience(Duration::from_secs(70)), "{took:?}");
}

/// Does `work` while the machine hears from the pipe, once the first half minute is over.
async fn beating_late<T>(agent: &Agent<SshLink>, work: impl Future<Output = T>) -> T {
    let late = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        beating(agent, std::future::pending::<T>()).await
    };
    tokio::select! { done = work => done, never = late => never }
}

#[tokio::test]
async fn more_channels_than_a_server_allows_take_another_connection() {
    if !installed() {
        return;
    }
    let mut server = Server::at(Ipv4Addr::LOCALHOST, free_port(), "MaxSessions 2");
    server.start();
    let agent = training(server.machine().await, spec("touch ready; sleep 1; echo done")).await;
    exists(server.home().work().join("ready")).await;
    let follow = async || {
        let mut seen = Vec::new();
        agent.follow(&mut 0, &mut |bytes| seen.extend_from_slice(bytes)).await.map(|()| seen)
    };
    let seen = tokio::join!(follow(), follow(), follow(), follow(), follow());
    for seen in <[Result<Vec<u8>>; 5]>::from(seen) {
        assert_eq!(seen.unwrap(), b"done\n");
    }
}

#[tokio::test]
async fn a_script_runs_as_root() {
    let root = rustix::process::getuid().is_root();
    if !installed()
        || !(root || Command::new("sudo").args(["-n", "true"]).status().is_ok_and(|s| s.success()))
    {
        return;
    }
    let server = Server::new();
    let link = server.link().await;
    let (mut lines, start) = (Vec::new(), Instant::now());
    let script = "# it's a script\nid -u\ncat\nprintf 'a\\rb\\n' >&2\nsleep 30 &\necho \"done\"";
    link.run_as_root(script, |line| lines.push(line.to_owned())).await.unwrap();
    assert_eq!(lines, ["0", "a", "b", "done"]);
    assert!(!is_late(start, Duration::from_secs(10)), "{:?}", start.elapsed());
    let error =
        link.run_as_root("echo one; ls /nowhere/at/all; echo two", |_| {}).await.unwrap_err().render();
    assert!(error.starts_with("the script that runs as root failed: one\n  ls: "), "{error}");
    assert!(!error.contains("two"), "{error}");
}
