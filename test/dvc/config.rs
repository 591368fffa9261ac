//! `.dvc/config` as the real DVC reads it, and the rules of what is ignored.

use super::oracle::Oracle;
use crate::support::say;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use trainspot_dvc::{Remotes, Tracking, track};

const CONFIG: &str = r#"
# a comment
[core]
    remote = Store   # the default
    analytics = false
['remote "store"']
    url = s3://bucket/prefix/
    region = eu-west-1
    acl = "a, b"
[remote "Base"]
    url = https://host:22/srv
    user = 'me'
    method = PUT
['remote "sub"']
    url = remote://base/deep/er
    user = you
['remote "deeper"']
    url = remote://sub/x
['remote "quoted"']
    url = "https://host/p#q"
    password = a;b
['remote "local"']
    url = ../../elsewhere
['remote "unknown"']
    url = s3://bucket
    regoin = x
['remote "elsewhere"']
    url = ftp://host/x
['remote "nothing"']
    region = x
['remote "lost"']
    url = remote://nobody/x
['remote "hash"']
    url = gs://bucket#comment
"#;

fn repository(folder: &Path, config: &str, local: &str) {
    fs::create_dir_all(folder.join(".dvc")).unwrap();
    fs::write(folder.join(".dvc/config"), config).unwrap();
    fs::write(folder.join(".dvc/config.local"), local).unwrap();
}

pub(super) fn load(folder: &Path, wanted: Option<&str>) -> Remotes {
    Remotes::load(folder, wanted, BTreeMap::new()).unwrap()
}

#[test]
fn remotes_are_read_as_dvc_reads_them() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    let names = [
        "store",
        "STORE",
        "base",
        "sub",
        "deeper",
        "quoted",
        "unknown",
        "elsewhere",
        "nothing",
        "lost",
        "hash",
        "none",
    ];
    let mut compared = 0;
    for name in names {
        let folder = tempfile::tempdir().unwrap();
        // DVC refuses all of a file for one remote; so each has a file without those that are wrong, but for
        // itself.
        let wrong = ["unknown", "elsewhere", "nothing", "lost"];
        let kept: String = CONFIG
            .split("['remote")
            .enumerate()
            .filter(|(_, text)| {
                !wrong.iter().any(|other| *other != name && text.starts_with(&format!(" \"{other}\"")))
            })
            .map(|(number, text)| if number == 0 { text.to_owned() } else { format!("['remote{text}") })
            .collect();
        repository(folder.path(), &kept, "['remote \"store\"']\n    secret_access_key = shh\n");
        let answer = oracle.ask("remotes", json!({"root": folder.path(), "names": [name]})).unwrap();
        let mine = load(folder.path(), None).choose(Some(name));
        let theirs = answer[0].as_object().unwrap();
        match mine {
            Err(error) => assert!(theirs.contains_key("error"), "{name}: {}", error.render()),
            Ok(mine) => {
                assert!(!theirs.contains_key("error"), "{name}: {answer}");
                assert_eq!(theirs["url"], Value::String(mine.url), "{name}");
                for (key, value) in &mine.options {
                    assert_eq!(
                        theirs[key].as_str().unwrap().to_lowercase(),
                        value.expose_secret().to_lowercase(),
                        "{name}: {key}"
                    );
                    compared += 1;
                }
            }
        }
    }
    say(&format!("{} remotes, {compared} options as DVC reads them", names.len()));
}

#[test]
fn an_output_s_own_remote_goes_before_dvc_remote_and_that_before_the_default() {
    let folder = tempfile::tempdir().unwrap();
    repository(folder.path(), CONFIG, "");
    let chosen = |wanted: Option<&str>, own: Option<&str>| {
        load(folder.path(), wanted).choose(own).map(|s| (s.name, s.url))
    };
    let pair = |name: &str, url: &str| (name.to_owned(), url.to_owned());
    assert_eq!(chosen(None, None).unwrap(), pair("store", "s3://bucket/prefix/"));
    assert_eq!(chosen(Some("Base"), None).unwrap(), pair("base", "https://host:22/srv"));
    assert_eq!(chosen(Some("base"), Some("sub")).unwrap(), pair("sub", "https://host:22/srv/deep/er"));
    assert_eq!(chosen(Some("gdrive://id/x"), None).unwrap(), pair("", "gdrive://id/x"));
    assert_eq!(chosen(Some("remote://base/y"), None).unwrap(), pair("", "https://host:22/srv/y"));
    assert_eq!(chosen(Some("/srv/store"), Some("base")).unwrap().0, "base");
    let error = chosen(Some("nobody"), None).unwrap_err().render();
    assert!(error.contains("there is no DVC remote 'nobody'") && error.contains("store"), "{error}");
    let local = load(folder.path(), Some("local")).choose(None).unwrap();
    assert_eq!(local.folder, folder.path().join(".dvc"));
    let address = load(folder.path(), Some("../x")).choose(None).unwrap();
    assert_eq!(address.folder, folder.path());
}

#[test]
fn what_is_wrong_or_unsupported_is_named() {
    for (config, wanted) in [
        ("[core]\nremot = x\n", "[core] has a key in .dvc/config that DVC does not know: 'remot'"),
        ("[cache]\ndirr = x\n", "'dirr'"),
        ("[core]\n  remote\n", "line 2"),
        ("a = b\n", "before the first section"),
        ("[core]\nremote = b, c\n", "'remote' of [core] in .dvc/config is a list"),
        ("[core]\nremote = '''b\n", "triple quotes are not closed"),
        ("[core]\nremote = %(b)s\n", "refers to another value by %(name)s, which is not there"),
        ("[core]\n[[deep]]\n", "[core] has a section 'deep' in it"),
        ("[core]\n[[[deep]]]\n", "line 2: its brackets do not fit"),
        ("[odd]\n", "a section in .dvc/config that DVC does not know: [odd]"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        repository(folder.path(), config, "");
        let error = Remotes::load(folder.path(), None, BTreeMap::new()).err().unwrap().render();
        assert!(error.contains(wanted), "{config:?}: {error}");
    }
    for (config, wanted) in [
        (
            "['remote \"a\"']\nurl = s3://b\nversion_aware = true\n",
            "`version_aware = true`, which is not supported",
        ),
        ("['remote \"a\"']\nurl = s3://b\nworktree = True\n", "`worktree = true`"),
        ("['remote \"a\"']\nurl = remote://a/x\n", "refers to itself"),
        ("['remote \"a\"']\nurl = hdfs://b\n", "not supported: 'hdfs://'"),
        ("", "there is no DVC remote 'a' in .dvc/config: it has none"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        repository(folder.path(), config, "");
        let error = load(folder.path(), None).choose(Some("a")).unwrap_err().render();
        assert!(error.contains(wanted), "{config:?}: {error}");
    }
    let error = load(tempfile::tempdir().unwrap().path(), None).choose(None).unwrap_err().render();
    assert!(error.contains("DVC_REMOTE"), "{error}");
}

/// A rule takes a path if tracking it fails (DVC's) or leaves `.gitignore` as it is (git's).
#[test]
fn rules_take_what_they_take_for_dvc() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    let mut random = fastrand::Rng::with_seed(11);
    let (names, mut taken) = (["a", "b", "c.txt", "d e", "[x]", "!y", "#z", "xc"], [0, 0]);
    let bits = [
        "a", "b", "*", "?", "**", "/", "/", "[ab]", "[!a]x", "c", ".txt", "d e", "d\\ e", "\\[x]", "\\!y",
        "\\#z", "x", "!", " ", "#", "{a,b}",
    ];
    for round in 0..60 {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        oracle.ask("init", json!({"root": root, "remote": "/srv/x"})).unwrap();
        let mut line =
            || -> String { (0..random.usize(1..5)).map(|_| random.choice(bits).unwrap()).collect() };
        let mut rules = || (0..4).map(|_| line() + "\n").collect::<String>();
        let texts = [rules(), rules(), rules(), rules()];
        let mut paths = Vec::new();
        for name in names {
            let path = format!("a/{}/{name}", random.choice(names).unwrap());
            fs::create_dir_all(root.join(&path).parent().unwrap()).unwrap();
            if !root.join(&path).exists() {
                if random.bool() {
                    fs::write(root.join(&path), name).unwrap();
                } else {
                    fs::create_dir(root.join(&path)).unwrap();
                }
                paths.push(path);
            }
        }
        for (place, text) in [".dvcignore", "a/.dvcignore", ".gitignore", "a/.gitignore"].iter().zip(&texts) {
            fs::write(root.join(place), text).unwrap();
        }
        // `!` alone, and a backslash at the end, break DVC; here they are no rules.
        let Ok(answer) = oracle.ask("ignored", json!({"root": root, "paths": paths})) else { continue };
        for (number, path) in paths.iter().enumerate() {
            let [data, git] = [0, 1].map(|kind| answer[kind][number].as_bool().unwrap());
            let remotes = load(root, None);
            let mine = track(&Tracking {
                root,
                folder: Path::new(""),
                outputs: std::slice::from_ref(path),
                in_git: &|_| None,
                remotes: &remotes,
            });
            let what = || format!("round {round}: {path:?} {texts:?}");
            match mine {
                Err(error) if error.render().contains("ignored by DVC") => assert!(data, "{}", what()),
                Err(error) => assert!(
                    error.render().contains("could not be committed"),
                    "{}: {}",
                    what(),
                    error.render()
                ),
                Ok(mine) => {
                    assert!(!data, "{}", what());
                    let added = mine.changes.iter().any(|change| change.path.ends_with(".gitignore"));
                    assert_eq!(!added, git, "{}", what());
                }
            }
            taken[0] += usize::from(data);
            taken[1] += usize::from(git && !data);
        }
    }
    assert!(taken.iter().all(|count| *count > 20), "{taken:?}");
    say(&format!("rules take what they take for DVC: {taken:?} paths by .dvcignore and .gitignore"));
}

/// On a rented machine no remote may be a folder, and no credential a file that stays behind.
#[test]
fn what_a_rented_machine_does_not_have_is_refused_before() {
    use trainspot_dvc::{DvcSettings, PathBase, Site, StorePlan};
    let settle = |settings: &DvcSettings, root: &Path, folders: PathBase, is_sent: fn(&Path) -> bool| {
        let site = Site { root, folders, in_git: Vec::new(), target: None };
        StorePlan::read(settings, &site).unwrap().settle(&|path| Ok(is_sent(path))).map(drop)
    };
    let config = "[core]\nremote = rel\n['remote \"rel\"']\nurl = ../../store\n['remote \"base\"']\nurl = /srv/x\n['remote \"sub\"']\nurl = remote://base/y\n['remote \"s\"']\nurl = s3://b\ncredentialpath = ../keys\n['remote \"h\"']\nurl = ssh://u@h/x\nkeyfile = ../id\n['remote \"g\"']\nurl = gs://b\n['remote \"w\"']\nurl = webdavs://h/x\ncert_path = /etc/c\n";
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    repository(root, config, "");
    fs::write(
        root.join("own.dvc"),
        format!("outs:\n- md5: {}\n  hash: md5\n  path: own\n  remote: base\n", "a".repeat(32)),
    )
    .unwrap();
    let check = |remote: Option<&str>, variables: &[(&str, &str)], folders: PathBase| {
        let environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let settings = DvcSettings {
            outputs: vec!["m.bin".to_owned()],
            remote: remote.map(str::to_owned),
            environment,
            ..DvcSettings::default()
        };
        settle(&settings, root, folders, |path| path == Path::new("id")).map_err(|error| {
            assert_eq!(error.exit_kind().exit_code(), 2);
            error.render()
        })
    };
    for (remote, words) in [
        (
            None,
            "the DVC remote 'rel' is the folder '../../store', which would be on the rented machine and go with it (the default remote",
        ),
        (Some("base"), "the DVC remote 'base' is the folder '/srv/x'"),
        (Some("sub"), "the DVC remote 'sub' is the folder '/srv/x/y'"),
        (
            Some("../store"),
            "the DVC remote is the folder '../store', which would be on the rented machine and go with it (DVC_REMOTE)",
        ),
        (Some("/srv/store"), "the folder '/srv/store'"),
        (Some("file:///srv/store"), "the folder '/srv/store'"),
        (Some("~/store"), "the folder '~/store'"),
        (Some("s"), "'credentialpath' of the remote 's' (s3://b) is the file"),
        (Some("w"), "'cert_path' of the remote 'w' (webdavs://h/x) is the file '/etc/c'"),
    ] {
        let error = check(remote, &[], PathBase::Rented).unwrap_err();
        assert!(error.contains(words) && error.contains("\nNext: "), "{remote:?}: {error}");
        let folders = PathBase::OfClone(root.to_owned());
        check(remote, &[], folders).unwrap_or_else(|error| panic!("{remote:?}: {error}"));
    }
    let google =
        check(Some("g"), &[("GOOGLE_APPLICATION_CREDENTIALS", "/secrets/key.json")], PathBase::Rented)
            .unwrap_err();
    assert!(
        google.contains("GOOGLE_APPLICATION_CREDENTIALS") && google.contains("'/secrets/key.json'"),
        "{google}"
    );
    // A file that git has goes along; a variable takes a file's place.
    check(Some("h"), &[], PathBase::Rented).unwrap();
    check(Some("g"), &[("GOOGLE_APPLICATION_CREDENTIALS", "{}")], PathBase::Rented).unwrap();
    check(Some("s"), &[("AWS_ACCESS_KEY_ID", "x")], PathBase::Rented).unwrap();
    // An output's own remote counts more than DVC_REMOTE.
    let settings = DvcSettings {
        outputs: vec!["own".to_owned()],
        remote: Some("s3://b".to_owned()),
        ..DvcSettings::default()
    };
    let error = settle(&settings, root, PathBase::Rented, |_| false).unwrap_err().render();
    assert!(
        error.contains("the DVC remote 'base' is the folder '/srv/x'")
            && error.contains("the output's own remote"),
        "{error}"
    );
}
