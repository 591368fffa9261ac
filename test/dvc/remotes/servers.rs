//! The servers. Each ends with this process.

use super::sample::settings;
use crate::support::{installed, say};
use rustix::process::getuid;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use trainspot_dvc::remote::Settings;

/// Importing Python's packages takes seconds, more of them while others compile.
const START: Duration = Duration::from_mins(2);

/// The folder of the Python that has DVC and the servers; the reason where there is none.
pub(crate) fn python() -> Result<&'static str, &'static str> {
    static BIN: OnceLock<Result<String, String>> = OnceLock::new();
    let made = BIN.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let made = Command::new(root.join("scripts/venv.sh"))
            .args(["dvc-remotes", "test/dvc/remotes.txt"])
            .current_dir(root)
            .output()
            .map_err(|error| format!("scripts/venv.sh: {error}"))?;
        if !made.status.success() {
            return Err(format!("no Python packages: {}", String::from_utf8_lossy(&made.stderr)));
        }
        Ok(String::from_utf8(made.stdout).unwrap().trim().to_owned())
    });
    made.as_deref().map_err(String::as_str)
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder that stays as long as the process, for servers that do too.
fn folder() -> PathBuf {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let path =
        FOLDER.get_or_init(|| tempfile::tempdir().unwrap()).path().join(format!("{:x}", fastrand::u64(..)));
    fs::create_dir_all(&path).unwrap();
    path
}

/// Starts a server that is killed when this process ends, and waits for its port.
fn start(program: &str, arguments: &[&str], port: u16) -> Result<(), String> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program).args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (started, is_started) = mpsc::channel();
    let name = program.to_owned();
    // The signal comes when the thread ends that started the process, so it must be one that stays.
    std::thread::spawn(move || {
        let child = command.spawn();
        started.send(child.as_ref().map(drop).map_err(ToString::to_string)).unwrap();
        let end = child.and_then(|mut child| child.wait());
        say(&format!("{name} ended: {end:?}"));
    });
    is_started.recv().unwrap().map_err(|error| format!("setpriv does not start: {error}"))?;
    let give_up = Instant::now() + START;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if Instant::now() > give_up {
            return Err(format!("{program} does not answer within {START:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// S3, by moto. Its address.
pub(crate) fn moto() -> Result<&'static str, &'static str> {
    static URL: OnceLock<Result<String, String>> = OnceLock::new();
    let made = URL.get_or_init(|| {
        let port = free_port();
        start(&format!("{}/moto_server", python()?), &["-H", "127.0.0.1", "-p", &port.to_string()], port)?;
        Ok(format!("http://127.0.0.1:{port}"))
    });
    made.as_deref().map_err(String::as_str)
}

/// A bucket of its own at moto.
pub(crate) async fn bucket(moto: &str) -> String {
    let name = format!("bucket-{:016x}", fastrand::u64(..));
    let made = reqwest::Client::new().put(format!("{moto}/{name}")).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.status());
    // A look at what arrived needs no credential.
    let policy = format!(
        r#"{{"Statement":[{{"Effect":"Allow","Principal":"*","Action":"s3:*","Resource":"arn:aws:s3:::{name}/*"}}]}}"#
    );
    let allowed =
        reqwest::Client::new().put(format!("{moto}/{name}?policy")).body(policy).send().await.unwrap();
    assert!(allowed.status().is_success(), "{}", allowed.status());
    name
}

/// `WebDAV`, by wsgidav behind cheroot: its address and its folder. The user is `ann`, the password `secret
/// word`.
pub(crate) fn webdav() -> Result<(String, PathBuf), String> {
    let (port, place) = (free_port(), folder());
    let (root, file) = (place.join("root"), place.join("wsgidav.yaml"));
    fs::create_dir(&root).unwrap();
    let configuration = format!(
        "host: 127.0.0.1\nport: {port}\nserver: cheroot\nprovider_mapping:\n  /: '{}'\nsimple_dc:\n  user_mapping:\n    '*':\n      ann: {{password: 'secret word'}}\nhttp_authenticator:\n  accept_basic: true\n  accept_digest: false\n  default_to_digest: false\nlock_storage: false\nproperty_manager: false\n",
        root.display()
    );
    fs::write(&file, configuration).unwrap();
    start(&format!("{}/wsgidav", python()?), &["-c", file.to_str().unwrap()], port)?;
    Ok((format!("webdav://127.0.0.1:{port}/data/store"), root.join("data/store")))
}

/// A web server that takes PUT, by nginx: its address and its folder. The user is `ann`, the password
/// `secret`.
pub(crate) fn nginx() -> Result<(String, PathBuf), String> {
    installed("/usr/sbin/nginx", "nginx-light")?;
    let (port, place) = (free_port(), folder());
    let root = place.join("root");
    fs::create_dir(&root).unwrap();
    fs::write(place.join("users"), "ann:{PLAIN}secret\n").unwrap();
    let user = if getuid().is_root() { "user root;" } else { "" };
    let configuration = format!(
        "daemon off; {user} pid {0}/pid; error_log {0}/error.log;\nevents {{}}\nhttp {{ access_log off; client_max_body_size 0; client_body_temp_path {0}/tmp;\nserver {{ listen 127.0.0.1:{port}; root {1};\nlocation / {{ auth_basic x; auth_basic_user_file {0}/users; dav_methods PUT DELETE; create_full_put_path on; }} }} }}\n",
        place.display(),
        root.display()
    );
    fs::write(place.join("nginx.conf"), configuration).unwrap();
    start(
        "/usr/sbin/nginx",
        &["-c", place.join("nginx.conf").to_str().unwrap(), "-p", place.to_str().unwrap()],
        port,
    )?;
    Ok((format!("http://127.0.0.1:{port}/data/store"), root.join("data/store")))
}

/// Google Cloud Storage, by an emulator with a bucket of its own: the emulator's address and the bucket.
pub(crate) fn google() -> Result<(String, String), String> {
    let port = free_port();
    let bucket = format!("bucket-{port}");
    let arguments = [
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        &port.to_string(),
        "--in-memory",
        "--default-bucket",
        &bucket,
    ];
    start(&format!("{}/gcp-storage-emulator", python()?), &arguments, port)?;
    Ok((format!("http://127.0.0.1:{port}"), bucket))
}

/// The account and key that every copy of azurite has.
const AZURITE: (&str, &str) = (
    "devstoreaccount1",
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
);

/// Azure Blob Storage, by azurite: a connection string, and a container that anybody may read, with its
/// address.
pub(crate) fn azure() -> Result<(String, String, String), String> {
    let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/azurite");
    let program = packages.join("node_modules/.bin/azurite-blob");
    if !program.exists() {
        fs::create_dir_all(&packages).unwrap();
        let install = ["install", "--no-audit", "--no-fund", "--silent", "azurite@3.37.0"];
        let mut command = Command::new("npm");
        let done =
            command.args(install).current_dir(&packages).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !done.is_ok_and(|status| status.success()) {
            return Err("npm cannot install azurite".to_owned());
        }
    }
    let (port, place) = (free_port(), folder());
    let text = port.to_string();
    let arguments = [
        "--silent",
        "--skipApiVersionCheck",
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        &text,
        "-l",
        place.to_str().unwrap(),
    ];
    start(program.to_str().unwrap(), &arguments, port)?;
    let (name, key) = AZURITE;
    let base = format!("http://127.0.0.1:{port}/{name}");
    let connection = format!("AccountName={name};AccountKey={key};BlobEndpoint={base};");
    let container = format!("container-{port}");
    let program = "import sys; from azure.storage.blob import BlobServiceClient as C; \
                C.from_connection_string(sys.argv[1]).create_container(sys.argv[2], public_access='blob')";
    let made =
        Command::new(format!("{}/python", python()?)).args(["-c", program, &connection, &container]).output();
    let made = made.map_err(|error| error.to_string())?;
    if !made.status.success() {
        return Err(format!("no container: {}", String::from_utf8_lossy(&made.stderr)));
    }
    Ok((connection, container.clone(), format!("{base}/{container}/")))
}

/// An SSH server, by OpenSSH.
pub(crate) struct Ssh {
    pub(crate) port: u16,
    pub(crate) folder: PathBuf,
    pub(crate) user: String,
    /// A file with the key that may log in.
    pub(crate) key: PathBuf,
    /// Who the server is, at this port, as `known_hosts` says it.
    pub(crate) known: String,
    pub(crate) host_key: String,
}

impl Ssh {
    /// The server's folder as a remote.
    pub(crate) fn settings(&self) -> Settings {
        let url = format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, self.folder.display());
        settings(&url, &[("keyfile", self.key.to_str().unwrap())], &[("SSH_KNOWN_HOSTS", &self.known)])
    }
}

/// A server whose key and user's key are of these kinds.
pub(crate) fn ssh(host_kind: &str, user_kind: &str) -> Result<Ssh, String> {
    const SSHD: &str = "/usr/sbin/sshd";
    installed(SSHD, "openssh-server")?;
    if getuid().is_root() {
        fs::create_dir_all("/run/sshd").ok();
    }
    let (port, place) = (free_port(), folder());
    for (name, kind) in [("host", host_kind), ("user", user_kind)] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", kind, "-N", "", "-C", "", "-f"])
            .arg(place.join(name))
            .status();
        assert!(made.unwrap().success());
    }
    let user = Command::new("id").arg("-un").output().unwrap().stdout;
    let configuration = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/user.pub\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\nMaxStartups 100\n",
        place.display()
    );
    fs::write(place.join("sshd_config"), configuration).unwrap();
    fs::set_permissions(place.join("host"), fs::Permissions::from_mode(0o600)).unwrap();
    start(SSHD, &["-D", "-f", place.join("sshd_config").to_str().unwrap()], port)?;
    let host_key = fs::read_to_string(place.join("host.pub")).unwrap().trim().to_owned();
    Ok(Ssh {
        port,
        user: String::from_utf8(user).unwrap().trim().to_owned(),
        key: place.join("user"),
        known: format!("[127.0.0.1]:{port} {host_key}\n"),
        host_key,
        folder: place.join("data"),
    })
}
