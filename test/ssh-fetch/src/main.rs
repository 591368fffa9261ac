//! Fetches a file as the pipe fetches outputs: for `scripts/bench.py`, which starts the SSH server.
//!
//! usage: `ssh-fetch PROGRAM KEYS PORT USER FILE`
//!
//! PROGRAM is the trainspot to install. Into the folder KEYS go the server's and the client's keys. Each line
//! on standard input names a folder to fetch a copy of FILE into; the answer is a line with the seconds, and
//! this process's peak memory in KiB.

use secrecy::ExposeSecret as _;
use std::error::Error;
use std::fs;
use std::io::{BufRead as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};
use trainspot_compute::link::Agent;
use trainspot_compute::link::ssh::{KeyPair, PackedAgent, SshLink, SshTarget};
use trainspot_protocol::FileSelection;
use trainspot_protocol::{AgentCommand, CommandSpec, CommandState};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, keys, port, user, file] = arguments.as_slice() else {
        return Err("usage: ssh-fetch PROGRAM KEYS PORT USER FILE".into());
    };
    let (host, client) = (KeyPair::new()?, KeyPair::new()?);
    for (name, key) in [("host", &host), ("client", &client)] {
        let private =
            fs::File::options().write(true).create_new(true).mode(0o600).open(Path::new(keys).join(name));
        private?.write_all(key.private_openssh()?.expose_secret().as_bytes())?;
        fs::write(Path::new(keys).join(format!("{name}.pub")), key.public_openssh()?)?;
    }
    let target = SshTarget {
        addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        port: port.parse()?,
        user: user.clone(),
        host_key: host.public_openssh()?,
        client,
    };
    // As the pipe has it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(fetch(target, program, file))
}

async fn fetch(target: SshTarget, program: &str, file: &str) -> Result<()> {
    let (link, packed) = tokio::join!(
        SshLink::open(target, Duration::from_secs(20)),
        PackedAgent::program(Path::new(program))
    );
    let link = link?;
    let supervise = [("--grace", "300".to_owned()), ("--ending", "remove".to_owned())];
    link.install(&packed?, &supervise).await?;
    let agent = Agent::new(link, "bench");
    let spec = CommandSpec {
        fingerprint: String::new(),
        command: format!("mkdir model && ln '{file}' model/big.bin"),
        environment: std::collections::BTreeMap::new(),
        max_runtime: Duration::from_mins(1),
        checkpoints: Vec::new(),
        checkpoint_interval: Duration::from_hours(1),
        resume: false,
        runner: None,
        detached: None,
    };
    ask(&agent, AgentCommand::Start(Box::new(spec))).await?;
    while !matches!(ask(&agent, AgentCommand::Heartbeat).await?, CommandState::Ended(_)) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let wanted = FileSelection { required: vec!["model/big.bin".to_owned()], ..FileSelection::default() };
    for folder in std::io::stdin().lock().lines() {
        let start = Instant::now();
        agent.fetch(&wanted, Path::new(&folder?), "fetching").await?;
        writeln!(std::io::stdout(), "{} {}", start.elapsed().as_secs_f64(), peak()?)?;
    }
    // The machine's end may be quicker than its answer.
    ask(&agent, AgentCommand::EndMachine).await.ok();
    Ok(())
}

async fn ask(agent: &Agent<SshLink>, command: AgentCommand) -> Result<CommandState> {
    let status = agent.ask(command).await.map_err(trainspot_base::error::Error::from)?;
    Ok(status.state)
}

fn peak() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
