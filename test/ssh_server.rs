//! A real OpenSSH server on the loopback, whose commands see a home of their own.

use rustix::process::{Pid, Signal, getuid, kill_process};
use secrecy::ExposeSecret as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;
use trainspot_agent::{Home, end_all};
use trainspot_compute::link::ssh::{KeyPair, PackedAgent, SshLink, SshTarget};

const SSHD: &str = "/usr/sbin/sshd";

/// Whether there is a server to test with. It is installed where it is missing and we are root.
pub(crate) fn installed() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        if let Err(reason) = crate::support::installed(SSHD, "openssh-server") {
            skip::skip(&reason);
            return false;
        }
        if getuid().is_root() {
            fs::create_dir_all("/run/sshd").ok();
        }
        true
    })
}

/// A server. It and all that it started are killed when this is dropped.
pub(crate) struct Server {
    pub(crate) folder: TempDir,
    address: Ipv4Addr,
    port: u16,
    host: KeyPair,
    client: KeyPair,
    more: String,
    process: Option<Child>,
}

impl Server {
    /// A server that runs.
    pub(crate) fn new() -> Self {
        let mut server = Self::at(Ipv4Addr::LOCALHOST, free_port(), "");
        server.start();
        server
    }

    /// A server that does not run yet, with these lines in its configuration.
    pub(crate) fn at(address: Ipv4Addr, port: u16, more: &str) -> Self {
        let (host, client) = (KeyPair::new().unwrap(), KeyPair::new().unwrap());
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("home")).unwrap();
        Self { folder, address, port, host, client, more: more.to_owned(), process: None }
    }

    pub(crate) fn start(&mut self) {
        let place = self.folder.path();
        let host = place.join("host_key");
        fs::write(&host, self.host.private_openssh().unwrap().expose_secret()).unwrap();
        fs::set_permissions(&host, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(place.join("authorized"), self.client.public_openssh().unwrap()).unwrap();
        let configuration = format!(
            "ListenAddress {}:{}\nHostKey {}\nAuthorizedKeysFile {}\nForceCommand HOME='{}' exec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n{}\n",
            self.address,
            self.port,
            host.display(),
            place.join("authorized").display(),
            place.join("home").display(),
            self.more,
        );
        let file = place.join("sshd_config");
        fs::write(&file, configuration).unwrap();
        let log = fs::File::create(place.join("sshd.log")).unwrap();
        let mut command = Command::new(SSHD);
        command
            .arg("-D")
            .arg("-e")
            .arg("-f")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        self.process = Some(command.spawn().unwrap());
    }

    /// The way in.
    pub(crate) fn target(&self) -> SshTarget {
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        SshTarget {
            addresses: vec![IpAddr::V4(self.address)],
            port: self.port,
            user: String::from_utf8(user).unwrap().trim().to_owned(),
            host_key: self.host.public_openssh().unwrap(),
            client: self.client.clone(),
        }
    }

    pub(crate) async fn link(&self) -> SshLink {
        SshLink::open(self.target(), Duration::from_secs(10)).await.unwrap()
    }

    /// A link to a machine whose agent runs.
    pub(crate) async fn machine(&self) -> SshLink {
        let link = self.link().await;
        link.install(packed().await, &supervise()).await.unwrap();
        link
    }

    /// The place of the agent.
    pub(crate) fn base(&self) -> PathBuf {
        self.folder.path().join("home/.trainspot")
    }

    pub(crate) fn home(&self) -> Home {
        Home::new(self.base().join("home"))
    }

    /// The server itself, then the processes that serve one connection each.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let Some(process) = &self.process else { return Vec::new() };
        let server = Pid::from_child(process);
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id()));
        let children = children.unwrap_or_default();
        let children = children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap());
        std::iter::once(server).chain(children).collect()
    }

    /// Stops the server and each process that serves a connection. A list of children that come or go may
    /// lack one: they are stopped until a list has none that is new.
    pub(crate) fn freeze(&self) {
        let mut stopped = Vec::new();
        loop {
            let processes = self.processes();
            for pid in &processes {
                kill_process(*pid, Signal::STOP).ok();
            }
            if processes == stopped {
                return;
            }
            stopped = processes;
        }
    }

    /// Sends this to each process that serves a connection.
    pub(crate) fn signal_connections(&self, signal: Signal) {
        for pid in &self.processes()[1..] {
            kill_process(*pid, signal).ok();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        while end_all(&self.home()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.signal_connections(Signal::KILL);
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// A port of the loopback that nobody listens at.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The program, as the pipe sends it.
pub(crate) async fn packed() -> &'static PackedAgent {
    static PACKED: tokio::sync::OnceCell<PackedAgent> = tokio::sync::OnceCell::const_new();
    let program = Path::new(env!("CARGO_BIN_EXE_trainspot"));
    PACKED.get_or_init(async || PackedAgent::program(program).await.unwrap()).await
}

pub(crate) fn supervise() -> [(&'static str, String); 2] {
    [("--grace", "120".to_owned()), ("--ending", "remove".to_owned())]
}
