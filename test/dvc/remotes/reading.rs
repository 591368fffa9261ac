//! The real DVC reads what we send.

use super::clouds::KEYS;
use super::sample::{Sample, remote, settings};
use super::servers;
use super::stores::or_skip;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use trainspot_dvc::remote::RemoteStore as _;
use trainspot_dvc::{Object, ObjectContent};

fn dvc(bin: &str, repository: &Path, environment: &[(&str, &str)], arguments: &[&str]) -> String {
    let home = repository.parent().unwrap();
    let done = Command::new("timeout")
        .args(["120", &format!("{bin}/dvc")])
        .args(arguments)
        .current_dir(repository)
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var("PATH").unwrap())
        .env("DVC_NO_ANALYTICS", "1")
        .env("DVC_SITE_CACHE_DIR", home.join("site"))
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "dvc {arguments:?}: {said}");
    said
}

fn pointer(object: &Object, more: &str, path: &str) -> String {
    format!("outs:\n- md5: '{}'\n  size: {}\n{more}  hash: md5\n  path: {path}\n", object.oid, object.size)
}

/// Sends a file and a directory, and lets DVC pull them into a repository that only has the pointers.
async fn pulled(
    bin: &str,
    url: &str,
    options: &[(&str, &str)],
    ours: &[(&str, &str)],
    theirs: &[(&str, &str)],
) {
    let place = tempfile::tempdir().unwrap();
    let repository = place.path().join("repository");
    std::fs::create_dir_all(repository.join(".dvc")).unwrap();
    let mut config =
        format!("[core]\n    remote = store\n    no_scm = true\n['remote \"store\"']\n    url = {url}\n");
    for (key, value) in options {
        writeln!(config, "    {key} = {value}").unwrap();
    }
    std::fs::write(repository.join(".dvc/config"), config).unwrap();
    // Google's emulator takes no empty object, and none of several parts.
    let lengths: &[usize] = if url.starts_with("gs://") { &[20, 70_000] } else { &[0, 20, 9 << 20] };
    let sample = Sample::of(lengths);
    let model = sample.file("model", b"the model");
    let mut settings = settings(url, options, ours);
    settings.folder = repository.join(".dvc");
    let remote = remote(&settings).await;
    let sent = async {
        remote.put(&model).await?;
        remote.put_all(&sample.objects).await
    };
    sent.await.unwrap_or_else(|error| panic!("{url}: {}", error.render()));
    let nfiles = format!("  nfiles: {}\n", sample.objects.len() - 1);
    std::fs::write(repository.join("model.dvc"), pointer(&model, "", "model")).unwrap();
    std::fs::write(repository.join("data.dvc"), pointer(sample.list(), &nfiles, "data")).unwrap();
    let (bin, arguments) =
        (bin.to_owned(), theirs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let arguments: Vec<(String, String)> = arguments.collect();
    let said = tokio::task::spawn_blocking(move || {
        let environment: Vec<_> =
            arguments.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        dvc(&bin, &repository, &environment, &["pull", "-q"]);
        assert_eq!(std::fs::read(repository.join("model")).unwrap(), b"the model");
        for (number, object) in sample.objects[..sample.objects.len() - 1].iter().enumerate() {
            let ObjectContent::File(path) = &object.content else { unreachable!() };
            let pulled = std::fs::read(repository.join(format!("data/file {number}"))).unwrap();
            assert!(pulled == std::fs::read(path).unwrap(), "file {number} is another");
        }
        dvc(&bin, &repository, &environment, &["status", "-c"])
            + &dvc(&bin, &repository, &environment, &["status"])
    });
    let said = said.await.unwrap();
    assert!(said.contains("in sync") && said.contains("up to date"), "{url}: {said}");
}

#[tokio::test]
async fn from_a_folder() {
    pulled(or_skip!(servers::python()), "../../store", &[], &[], &[]).await;
}

#[tokio::test]
async fn from_s3() {
    let moto = or_skip!(servers::moto());
    let bucket = servers::bucket(moto).await;
    let options = [&[("endpointurl", moto), ("region", "us-east-1")], &KEYS[..]].concat();
    pulled(servers::python().unwrap(), &format!("s3://{bucket}/models"), &options, &[], &[]).await;
}

#[tokio::test]
async fn from_webdav() {
    let (url, _) = or_skip!(servers::webdav());
    pulled(servers::python().unwrap(), &url, &[("user", "ann"), ("password", "secret word")], &[], &[]).await;
}

#[tokio::test]
async fn from_http() {
    let bin = or_skip!(servers::python());
    let (url, _) = or_skip!(servers::nginx());
    pulled(
        bin,
        &url,
        &[("method", "PUT"), ("auth", "basic"), ("user", "ann"), ("password", "secret")],
        &[],
        &[],
    )
    .await;
}

#[tokio::test]
async fn from_ssh() {
    let bin = or_skip!(servers::python());
    let server = or_skip!(servers::ssh("ed25519", "ed25519"));
    let url = format!("ssh://{}@127.0.0.1:{}{}", server.user, server.port, server.folder.display());
    let options = [("keyfile", server.key.to_str().unwrap())];
    pulled(bin, &url, &options, &[("SSH_KNOWN_HOSTS", &server.known)], &[]).await;
}

#[tokio::test]
async fn from_azure() {
    let (connection, container, _) = or_skip!(servers::azure());
    let environment = [("AZURE_STORAGE_CONNECTION_STRING", connection.as_str())];
    pulled(
        servers::python().unwrap(),
        &format!("azure://{container}/models"),
        &[],
        &environment,
        &environment,
    )
    .await;
}

#[tokio::test]
async fn from_google() {
    let (url, bucket) = or_skip!(servers::google());
    let options = [("endpointurl", url.as_str()), ("allow_anonymous_login", "true")];
    let place = format!("gs://{bucket}/models");
    // Without the second, it talks gRPC, which the emulator does not.
    let environment =
        [("STORAGE_EMULATOR_HOST", url.as_str()), ("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")];
    pulled(servers::python().unwrap(), &place, &options, &[], &environment).await;
}
