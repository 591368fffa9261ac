//! The image, run as Pipelines runs a pipe. Skipped, with the reason, where there is neither Docker nor
//! podman.

use crate::support::{Access, Run, Scene};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Mutex;
use trainspot_base::mutex::lock;

/// What `scripts/with-docker.sh` exits with when it can get no engine.
const SKIPPED: i32 = 77;

/// Runs `script` with a `docker` that works and the image as `$IMAGE`; `None` where no engine can be had.
fn in_image(script: &str, environment: &Command) -> Option<Output> {
    // One at a time, lest the pruning takes the steps of another build.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = lock(&ONE);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let image = format!("trainspot-test:{}", std::process::id());
    // The image goes again, and what the classic builder leaves of its steps.
    let whole = format!(
        "trap 'docker rmi --force \"$IMAGE\" >/dev/null; \
         docker image prune --force --filter label=org.opencontainers.image.title=trainspot >/dev/null' EXIT\n\
         scripts/image.sh \"$BINARY\" \"$IMAGE\" >&2 || exit\n{script}"
    );
    let mut command = Command::new(root.join("scripts/with-docker.sh"));
    command.args(["sh", "-c", &whole]).current_dir(root);
    command.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("BINARY", env!("CARGO_BIN_EXE_trainspot")).env("IMAGE", image).env_remove("TMPDIR");
    let output = command.output().unwrap();
    if output.status.code() == Some(SKIPPED) {
        let words = String::from_utf8_lossy(&output.stderr);
        let why = words.lines().find_map(|line| line.strip_prefix("skipped: "));
        skip::skip(why.unwrap_or("there is no container engine"));
        return None;
    }
    Some(output)
}

/// The flags with which Pipelines names the variables of a step.
fn flags(environment: &Command) -> String {
    let names = environment.get_envs().map(|(name, _)| name.to_str().unwrap());
    // What describes this machine is not passed into a container.
    let names = names.filter(|name| !["PATH", "TMPDIR", "PIPELINES_PROXY"].contains(name));
    names.map(|name| format!("--env={name}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn publishes_through_the_proxy_of_pipelines() {
    let mut scene = Scene::new(Access::Proxy, &[("train.py", "print('hi')\n")]);
    std::fs::create_dir(scene.clone().join("model")).unwrap();
    std::fs::write(scene.clone().join("model/m.bin"), b"weights").unwrap();
    std::fs::write(scene.clone().join("model/metrics.json"), b"{\"accuracy\": 0.91}\n").unwrap();
    scene.set("ACTION", "publish").set("OUTPUTS_COUNT", "2");
    scene.set("OUTPUTS_0", "model/m.bin").set("OUTPUTS_1", "model/*.json");

    let step = scene.command();
    let proxy = scene.bitbucket.proxy_url().replace("127.0.0.1", "host.docker.internal");
    // The host's network because the fake Bitbucket listens on its loopback; the rest is as Pipelines has it.
    let run = format!(
        "docker run --rm --network=host --add-host=host.docker.internal:127.0.0.1 \
         --volume=\"{clone}:{clone}\" --workdir=\"{clone}\" --label=org.bitbucket.pipelines.system=true \
         {flags} -e PIPELINES_PROXY=\"{proxy}\" \"$IMAGE\"",
        clone = scene.clone().display(),
        flags = flags(&step),
    );
    let Some(output) = in_image(&run, &step) else { return };
    let run = Run::from(output).expect(0);
    let branch = scene.branch();
    assert_eq!(
        scene.remote.git(&["diff", "--name-only", "main", &branch]),
        "model/m.bin\nmodel/metrics.json"
    );
    assert_eq!(scene.remote.file(&branch, "model/m.bin").unwrap(), b"weights");
    assert_eq!(scene.bitbucket.reports().len(), 1, "{}", run.log);
}

/// What an official pipe's image has in its root, and what a program without a system needs.
#[test]
fn holds_the_binary_certificates_and_documents_and_nothing_else() {
    let list =
        "id=$(docker create \"$IMAGE\") && docker export \"$id\" | tar -tv; docker rm \"$id\" >/dev/null";
    let Some(output) = in_image(list, &Command::new("true")) else { return };
    let run = Run::from(output).expect(0);
    let files: Vec<&str> = run
        .out
        .lines()
        .filter(|line| line.starts_with('-') && !line.contains(" 0 "))
        .filter_map(|line| line.split_whitespace().last())
        .collect();
    let wanted = ["LICENSE", "README.md", "etc/ssl/certs/ca-certificates.crt", "pipe.yml", "trainspot"];
    assert_eq!(files, wanted, "{}", run.out);
    let tmp = run.out.lines().find(|line| line.ends_with(" tmp/")).unwrap_or_default();
    assert!(tmp.starts_with("drwxrwxrwt"), "{}", run.out);
}
