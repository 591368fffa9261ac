//! Each kind of remote does what the trait says.

use super::sample::{Sample, Sight, remote, settings, story};
use super::servers;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;
use trainspot_dvc::remote::{RemoteStore as _, Settings};
use trainspot_dvc::{Object, ObjectContent, Remotes, Stamp, Tracked, Tracking, push, track, write};

/// Nothing, little, and several parts.
pub(crate) const LENGTHS: [usize; 4] = [0, 20, 70_000, 20 << 20];

macro_rules! or_skip {
    ($server:expr) => {
        match $server {
            Ok(server) => server,
            Err(reason) => return skip::skip(&reason),
        }
    };
}
pub(crate) use or_skip;

#[tokio::test]
async fn a_folder() {
    let (sample, place) = (Sample::of(&LENGTHS), tempfile::tempdir().unwrap());
    let root = place.path().join("not/yet/there");
    let mut settings = settings("../not/yet/there", &[], &[]);
    settings.folder = place.path().join(".dvc");
    std::fs::create_dir(&settings.folder).unwrap();
    let spoil = async |object: &Object| {
        let path = root.join(object.oid.key());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(path, "wrong").unwrap();
    };
    story(&settings, &Sight::Folder(root.clone()), &sample, spoil).await;
    let names = walk(&root);
    assert_eq!(names.len(), sample.objects.len(), "something was left: {names:?}");
    for name in &names {
        assert_eq!(std::fs::metadata(name).unwrap().permissions().mode() & 0o7777, 0o444);
    }
    // One of the right size that DVC would not trust is read.
    let path = root.join(sample.objects[2].oid.key());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let remote = remote(&settings).await;
    assert_eq!(remote.missing(&sample.objects).await.unwrap(), []);
    let wrong = vec![1; usize::try_from(sample.objects[2].size).unwrap()];
    std::fs::write(&path, wrong).unwrap();
    assert_eq!(remote.missing(&sample.objects).await.unwrap(), [sample.objects[2].oid.clone()]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_stamped_file_is_sent_unhashed_only_as_long_as_it_is_the_same() {
    let (sample, place) = (Sample::of(&[]), tempfile::tempdir().unwrap());
    let file = sample.file("model", b"model");
    let ObjectContent::File(path) = file.content.clone() else { unreachable!() };
    let look = || std::fs::File::open(&path).unwrap();
    assert_eq!(Stamp::before_hashing(&look()), None, "a file that was just written may change unseen");
    std::thread::sleep(Duration::from_millis(60));
    let stamp = Stamp::before_hashing(&look()).unwrap();
    let settings = settings(place.path().to_str().unwrap(), &[], &[]);
    let remote = remote(&settings).await;
    let hashed = Object { content: ObjectContent::Hashed(path.clone(), stamp), ..file };
    remote.put(&hashed).await.unwrap();
    assert!(Sight::Folder(place.path().to_owned()).has_all(std::slice::from_ref(&hashed)).await);
    // Another content of the same length, and the old time of change: only the kernel's own time tells.
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    std::fs::write(&path, b"other").unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    let why = remote.put(&hashed).await.unwrap_err().render();
    assert!(why.contains("is not what it was when it was hashed"), "{why}");
    // Written again as it was: another time, but the same content.
    std::fs::write(&path, b"model").unwrap();
    remote.put(&hashed).await.unwrap();
}

/// Tracks the output `model` of a repository for a remote in a folder.
fn track_model(repository: &Path, root: &Path) -> Tracked {
    let remotes = Remotes::load(repository, root.to_str(), BTreeMap::new()).unwrap();
    let outputs = ["model".to_owned()];
    let tracking = Tracking {
        root: repository,
        folder: Path::new(""),
        outputs: &outputs,
        in_git: &|_: &Path| None,
        remotes: &remotes,
    };
    std::thread::sleep(Duration::from_millis(60));
    track(&tracking).unwrap_or_else(|error| panic!("{}", error.render()))
}

#[tokio::test]
async fn a_large_output_is_copied_into_a_folder_while_it_is_hashed() {
    let (repository, place) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (repository, root) = (repository.path(), place.path().join("store"));
    let remote = remote(&settings(root.to_str().unwrap(), &[], &[])).await;
    let model = repository.join("model");
    std::fs::write(&model, vec![7; 65 << 20]).unwrap();

    let tracked = track_model(repository, &root);
    let objects = &tracked.uploads[0].objects;
    assert!(matches!(objects[0].content, ObjectContent::Drafted(..)));
    assert_eq!(walk(&root).len(), 1, "the draft");
    assert_eq!(push(&remote, objects).await.unwrap().objects, 1);
    assert!(Sight::Folder(root.clone()).has_all(objects).await);
    assert_eq!(walk(&root), [root.join(objects[0].oid.key())]);
    assert_eq!(std::fs::metadata(&walk(&root)[0]).unwrap().permissions().mode() & 0o7777, 0o444);
    // The draft is used up: sent again, the file itself is copied.
    remote.put(&objects[0]).await.unwrap();
    assert_eq!(walk(&root).len(), 1);
    write(repository, &tracked.changes).unwrap();

    // As long as before, it may be what is there.
    let again = track_model(repository, &root);
    assert!(matches!(again.uploads[0].objects[0].content, ObjectContent::Hashed(..)));
    assert_eq!(push(&remote, &again.uploads[0].objects).await.unwrap().there, 1);

    // One that is not sent leaves nothing.
    std::fs::write(&model, vec![7; 66 << 20]).unwrap();
    let longer = track_model(repository, &root);
    assert!(matches!(longer.uploads[0].objects[0].content, ObjectContent::Drafted(..)));
    assert_eq!(walk(&root).len(), 2);
    drop(longer);
    assert_eq!(walk(&root).len(), 1, "a draft was left");
}

#[tokio::test]
async fn a_full_disk_leaves_nothing_and_is_told() {
    let place = tempfile::tempdir().unwrap();
    let settings = settings(place.path().to_str().unwrap(), &[], &[]);
    let Some((whys, left)) = fill(&settings, place.path()).await else { return };
    for why in whys {
        assert!(why.contains("No space left on device") && why.contains("make room there"), "{why}");
    }
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_full_disk_of_an_ssh_server_is_told() {
    let server = or_skip!(servers::ssh("ed25519", "ed25519"));
    std::fs::create_dir(&server.folder).unwrap();
    let Some((whys, left)) = fill(&server.settings(), &server.folder).await else { return };
    for why in whys {
        assert!(why.contains("Failure") && why.contains("whether the server's disk is full"), "{why}");
    }
    assert_eq!(left, 0);
}

/// Sends more than there is room for: all at a time, then one by one. What is told, and how many files are
/// left half-sent.
async fn fill(settings: &Settings, place: &Path) -> Option<([String; 2], usize)> {
    let mount = |arguments: &[&str]| std::process::Command::new("mount").args(arguments).arg(place).status();
    if !mount(&["-t", "tmpfs", "-o", "size=4m", "none"]).is_ok_and(|status| status.success()) {
        skip::skip("no file system can be mounted here");
        return None;
    }
    let sample = Sample::of(&[100, 3 << 20, 3 << 20]);
    let remote = remote(settings).await;
    let all = remote.put_all(&sample.objects).await.unwrap_err().render();
    let mut one = String::new();
    for object in &sample.objects {
        if let Err(error) = remote.put(object).await {
            one = error.render();
        }
    }
    let seen = Sight::Folder(place.to_owned());
    for object in &sample.objects {
        assert_ne!(seen.whole_or_nothing(object).await, Some(false));
    }
    let left =
        walk(place).into_iter().filter(|path| path.extension().is_some_and(|end| end == "tmp")).count();
    std::process::Command::new("umount").arg(place).status().unwrap();
    Some(([all, one], left))
}

#[tokio::test]
async fn webdav_by_wsgidav() {
    let (url, root) = or_skip!(servers::webdav());
    let settings = settings(&url, &[("user", "ann"), ("password", "secret word")], &[]);
    let spoil = async |object: &Object| std::fs::write(root.join(object.oid.key()), "wrong").unwrap();
    // Enough of them that folders are listed.
    let lengths = [&LENGTHS[..], &[30; 1200]].concat();
    story(&settings, &Sight::Folder(root.clone()), &Sample::of(&lengths), spoil).await;
    let left: Vec<_> =
        walk(&root).into_iter().filter(|path| path.extension().is_some_and(|end| end == "tmp")).collect();
    assert!(left.is_empty(), "{left:?}");
    let wrong = super::sample::settings(&url, &[("user", "ann"), ("password", "hunter2")], &[]);
    let why = remote(&wrong).await.put(&Sample::of(&[1]).objects[0]).await.unwrap_err().render();
    assert!(
        why.contains("401") && why.contains("check 'user' and 'password'") && !why.contains("hunter2"),
        "{why}"
    );
}

#[tokio::test]
async fn http_by_nginx() {
    let (url, root) = or_skip!(servers::nginx());
    let options = [("method", "PUT"), ("auth", "basic"), ("user", "ann"), ("password", "secret")];
    let spoil = async |object: &Object| std::fs::write(root.join(object.oid.key()), "wrong").unwrap();
    story(&settings(&url, &options, &[]), &Sight::Folder(root.clone()), &Sample::of(&LENGTHS), spoil).await;
    // What nginx does not take.
    let post = settings(&url, &[&options[1..], &[("method", "POST")]].concat(), &[]);
    let why = remote(&post).await.put(&Sample::of(&[1]).objects[0]).await.unwrap_err().render();
    assert!(why.contains("HTTP 40") && why.contains("'method'"), "{why}");
}

#[tokio::test]
async fn ssh_by_openssh() {
    for (host, user) in [("ed25519", "ed25519"), ("rsa", "rsa"), ("ecdsa", "ecdsa")] {
        let server = or_skip!(servers::ssh(host, user));
        let settings = server.settings();
        let spoil =
            async |object: &Object| std::fs::write(server.folder.join(object.oid.key()), "wrong").unwrap();
        story(&settings, &Sight::Folder(server.folder.clone()), &Sample::of(&LENGTHS), spoil).await;
        assert!(walk(&server.folder).iter().all(|path| path.extension().is_none_or(|end| end != "tmp")));
    }
}

#[tokio::test]
async fn ssh_talks_to_no_server_that_is_not_known() {
    let server = or_skip!(servers::ssh("ed25519", "ed25519"));
    let other = or_skip!(servers::ssh("ed25519", "ed25519"));
    let url = format!("ssh://{}@127.0.0.1:{}{}", server.user, server.port, server.folder.display());
    let object = &Sample::of(&[1]).objects[0];
    let key = std::fs::read_to_string(&server.key).unwrap();
    let unknown = settings(&url, &[], &[("SSH_PRIVATE_KEY", &key)]);
    let why = trainspot_dvc::remote::open(&unknown).await.err().unwrap().render();
    assert!(why.contains("no known_hosts knows") && why.contains("ssh-keyscan"), "{why}");
    let known = format!("[127.0.0.1]:{} {}\n", server.port, other.host_key);
    let wrong = settings(&url, &[], &[("SSH_PRIVATE_KEY", &key), ("SSH_KNOWN_HOSTS", &known)]);
    let why = remote(&wrong).await.put(object).await.unwrap_err().render();
    assert!(why.contains("its host key is not the one in known_hosts"), "{why}");
    // A key that the server does not let in.
    let other_key = std::fs::read_to_string(&other.key).unwrap();
    let stranger =
        settings(&url, &[], &[("SSH_PRIVATE_KEY", other_key.trim()), ("SSH_KNOWN_HOSTS", &server.known)]);
    let why = remote(&stranger).await.put(object).await.unwrap_err().render();
    assert!(why.contains("does not let") && why.contains("'keyfile'"), "{why}");
    // The home's own files.
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".ssh")).unwrap();
    std::fs::write(home.path().join(".ssh/known_hosts"), &server.known).unwrap();
    std::fs::copy(&server.key, home.path().join(".ssh/id_ed25519")).unwrap();
    let own = settings(&url, &[], &[("HOME", home.path().to_str().unwrap())]);
    remote(&own).await.put(object).await.unwrap();
}
