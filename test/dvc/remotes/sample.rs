//! Objects to send, and a look at what arrived.

use md5::{Digest as _, Md5};
use secrecy::SecretString;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;
use trainspot_dvc::remote::{AnyRemote, RemoteStore, Settings, open};
use trainspot_dvc::{Object, ObjectContent, Oid};

/// Files and a directory's list, with what they hold.
pub(crate) struct Sample {
    pub(crate) folder: TempDir,
    pub(crate) objects: Vec<Object>,
}

pub(crate) fn md5(bytes: &[u8]) -> String {
    format!("{:032x}", u128::from_be_bytes(Md5::digest(bytes).into()))
}

impl Sample {
    /// Files of these lengths with random content, and the list of them all.
    pub(crate) fn of(lengths: &[usize]) -> Self {
        let mut sample = Self { folder: tempfile::tempdir().unwrap(), objects: Vec::new() };
        let mut list = Vec::new();
        for (number, length) in lengths.iter().enumerate() {
            let mut bytes = vec![0; *length];
            fastrand::fill(&mut bytes);
            let object = sample.file(&format!("file {number}"), &bytes);
            list.push(format!(r#"{{"md5": "{}", "relpath": "file {number}"}}"#, object.oid));
            sample.objects.push(object);
        }
        let list = format!("[{}]", list.join(", "));
        let oid = Oid::parse(&format!("{}.dir", md5(list.as_bytes()))).unwrap();
        let size = list.len() as u64;
        sample.objects.push(Object { oid, size, content: ObjectContent::Bytes(list.into()) });
        sample
    }

    pub(crate) fn file(&self, name: &str, bytes: &[u8]) -> Object {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let oid = Oid::parse(&md5(bytes)).unwrap();
        Object { oid, size: bytes.len() as u64, content: ObjectContent::File(path) }
    }

    /// The name of the directory's list.
    pub(crate) fn list(&self) -> &Object {
        self.objects.last().unwrap()
    }
}

/// Settings of a remote.
pub(crate) fn settings(url: &str, options: &[(&str, &str)], environment: &[(&str, &str)]) -> Settings {
    let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, SecretString> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect()
    };
    Settings {
        name: "store".to_owned(),
        url: url.to_owned(),
        options: map(options),
        folder: PathBuf::from("/nowhere"),
        environment: map(environment),
    }
}

pub(crate) async fn remote(settings: &Settings) -> AnyRemote {
    open(settings).await.unwrap_or_else(|error| panic!("{}", error.render()))
}

/// What a reader sees of an object.
#[derive(Clone)]
pub(crate) enum Sight {
    Folder(PathBuf),
    /// The start of an address; the object's key comes after it, `/` written as given.
    Web(String, &'static str),
}

impl Sight {
    pub(crate) async fn of(&self, key: &str) -> Option<Vec<u8>> {
        match self {
            Self::Folder(root) => std::fs::read(root.join(key)).ok(),
            Self::Web(base, slash) => {
                let (key, query) = (key.replace('/', slash), if *slash == "/" { "" } else { "?alt=media" });
                let answer = reqwest::get(format!("{base}{key}{query}")).await.unwrap();
                if answer.status() == 404 {
                    return None;
                }
                assert!(answer.status().is_success(), "{base}{key}: {}", answer.status());
                Some(answer.bytes().await.unwrap().to_vec())
            }
        }
    }

    /// Whether a reader sees nothing of the object, or all of it.
    pub(crate) async fn whole_or_nothing(&self, object: &Object) -> Option<bool> {
        let seen = self.of(&object.oid.key()).await;
        seen.map(|bytes| bytes.len() as u64 == object.size && md5(&bytes) == object.oid.md5())
    }

    pub(crate) async fn has_all(&self, objects: &[Object]) -> bool {
        for object in objects {
            if self.whole_or_nothing(object).await != Some(true) {
                return false;
            }
        }
        true
    }
}

/// What every remote does: sends what is missing, finds what is there, replaces what is wrong, and refuses
/// what changed.
pub(crate) async fn story(settings: &Settings, sight: &Sight, sample: &Sample, spoil: impl AsyncFn(&Object)) {
    let remote = remote(settings).await;
    let objects = &sample.objects;
    let missing = |found: Vec<Oid>| found.len();
    assert_eq!(
        missing(remote.missing(objects).await.unwrap_or_else(|error| panic!("{}", error.render()))),
        objects.len(),
        "before"
    );
    remote.put_all(objects).await.unwrap_or_else(|error| panic!("{}", error.render()));
    assert!(sight.has_all(objects).await, "what was sent is not what is there");
    assert_eq!(
        remote.missing(objects).await.unwrap_or_else(|error| panic!("{}", error.render())),
        [],
        "after"
    );
    // Sent again: nothing changes.
    remote.put(&objects[0]).await.unwrap_or_else(|error| panic!("{}", error.render()));
    assert!(sight.has_all(objects).await);
    // One that is there but wrong is missing, and is replaced.
    spoil(&objects[0]).await;
    assert_eq!(
        remote.missing(objects).await.unwrap_or_else(|error| panic!("{}", error.render())),
        [objects[0].oid.clone()],
        "spoiled"
    );
    remote.put(&objects[0]).await.unwrap_or_else(|error| panic!("{}", error.render()));
    assert!(sight.has_all(objects).await, "what was wrong was not replaced");
    changed(&remote, sight, sample).await;
}

/// A file that was changed after it was hashed, or removed, is not sent.
async fn changed(remote: &AnyRemote, sight: &Sight, sample: &Sample) {
    let longest = sample.objects.iter().map(|object| usize::try_from(object.size).unwrap()).max().unwrap();
    for length in [100, longest] {
        let mut bytes = vec![7; length];
        fastrand::fill(&mut bytes);
        let object = sample.file("changing", &bytes);
        let ObjectContent::File(path) = &object.content else { unreachable!() };
        bytes[length / 2] ^= 1;
        std::fs::write(path, &bytes).unwrap();
        let why = remote.put(&object).await.unwrap_err().render();
        assert!(why.contains("is not what it was when it was hashed"), "{why}");
        assert_ne!(sight.whole_or_nothing(&object).await, Some(false), "a changed file was sent");
        std::fs::write(path, &bytes[1..]).unwrap();
        let why = remote.put(&object).await.unwrap_err().render();
        assert!(why.contains("is not what it was when it was hashed"), "{why}");
        std::fs::remove_file(path).unwrap();
        let why = remote.put(&object).await.unwrap_err().render();
        assert!(why.contains("cannot read") && why.contains("run what makes it again"), "{why}");
        assert_ne!(sight.whole_or_nothing(&object).await, Some(false));
    }
}
