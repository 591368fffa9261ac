//! What is committed beside what `git add` would commit, over generated attributes and contents; and what is
//! refused.

use super::*;
use crate::support::say;
use std::collections::BTreeMap;
use trainspot_base::error::Kind;

const WORDS: [&str; 10] = [
    "text",
    "-text",
    "!text",
    "text=auto",
    "text=input",
    "text=nonsense",
    "eol=lf",
    "eol=crlf",
    "-eol",
    "ident",
];
/// Each in repositories of its own: libgit2's macro `binary` sets `crlf`, git's does not.
const MORE_WORDS: [&[&str]; 2] = [&["binary"], &["crlf", "-crlf", "crlf=input"]];
const PATTERNS: [&str; 7] = ["*", "*.csv", "model/*", "model/**", "/model/table.csv", "table.*", "model/"];

/// A text, or bytes, up to a few kilobytes, or over a megabyte.
fn content(random: &mut fastrand::Rng) -> Vec<u8> {
    const PIECES: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b"a,b",
        b"1",
        b"$Id$",
        b"$Id: x $",
        b"$Id: no\nend $",
        b"\r",
        b"\0",
        b"\x1a",
        b"\xc3\xbc",
        b"\x01\x02",
    ];
    // Mostly text, as one odd byte makes the whole file binary.
    let kinds = if random.u8(0..4) > 0 { 7 } else { PIECES.len() };
    let mut bytes = Vec::new();
    for _ in 0..random.usize(0..60) {
        bytes.extend_from_slice(PIECES[random.usize(0..kinds)]);
    }
    if random.u8(0..12) == 0 && !bytes.is_empty() {
        let times = 1_200_000 / bytes.len() + 1;
        bytes = bytes.repeat(times);
    }
    bytes
}

fn attributes(more: &[&str], random: &mut fastrand::Rng) -> String {
    let all = [&WORDS, more].concat();
    let line = |random: &mut fastrand::Rng| {
        let pattern = PATTERNS[random.usize(0..PATTERNS.len())];
        let words: Vec<_> = (0..random.usize(1..3)).map(|_| all[random.usize(0..all.len())]).collect();
        format!("{pattern} {}\n", words.join(" "))
    };
    (0..random.usize(0..4)).map(|_| line(random)).collect()
}

/// The blobs that git itself makes of the files, with an index of its own.
fn added_by_git(world: &World, paths: &[&str]) -> BTreeMap<String, String> {
    let index = world.directory.path().join("index");
    fs::copy(world.clone().join(".git/index"), &index).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(world.clone()).env("GIT_INDEX_FILE", &index).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    git(&[&["add", "--force", "--"], paths].concat());
    let listed = git(&[&["ls-files", "--stage", "--"], paths].concat());
    let entry = |line: &str| {
        let (entry, path) = line.split_once('\t').unwrap();
        (path.to_owned(), entry.split(' ').nth(1).unwrap().to_owned())
    };
    listed.lines().map(entry).collect()
}

#[tokio::test]
async fn the_bytes_are_those_of_git_add() {
    let cases = std::env::var("TRAINSPOT_ATTRIBUTES").map_or(12, |text| text.parse().unwrap());
    let seed =
        std::env::var("TRAINSPOT_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    say(&format!("attributes: TRAINSPOT_SEED={seed}"));
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut compared, mut changed) = (0, 0);
    for case in 0..cases {
        let committed = content(&mut random);
        // Committed with its CRLF, if it has any: git leaves such a file alone.
        let world = World::with_files(&[("model/table.csv", &committed), ("history.csv", b"a\n")]);
        let more = MORE_WORDS[random.usize(0..2)];
        let all = [".gitattributes", "model/.gitattributes", ".git/info/attributes"]
            .map(|file| (file, attributes(more, &mut random)));
        for (file, text) in &all {
            world.write(file, text.as_bytes());
        }
        let autocrlf = ["true", "false", "input"][random.usize(0..3)];
        world.git_in_clone(&["config", "core.autocrlf", autocrlf]);
        world.git_in_clone(&["config", "core.safecrlf", "false"]);
        let paths = ["model/table.csv", "model/raw.bin", "notes.txt", "deep/model/x.csv", "model/.gitignore"];
        let mut before = BTreeMap::new();
        for path in paths {
            let bytes = content(&mut random);
            world.write(path, &bytes);
            before.insert(path, bytes);
        }
        let expected = added_by_git(&world, &paths);
        let remote = GitRemote { url: world.bare.path().display().to_string(), access: Access::Anonymous };
        let published = world.publish_to(&remote, publication_of("a", pull_request(), &paths)).await;
        let head = match published.map_err(|error| error.render()) {
            Ok(Published::Pushed { commit, .. }) => commit,
            Ok(Published::Unchanged { .. }) => world.bare.head("main").unwrap(),
            Err(error) => panic!("{error}"),
        };
        for path in paths {
            let ours = world.bare.git(&["rev-parse", &format!("{head}:{path}")]);
            assert_eq!(
                ours,
                expected[path],
                "seed {seed}, case {case}, {path}, autocrlf {autocrlf}, attributes {all:?}, content {:?}",
                String::from_utf8_lossy(&before[path])
            );
            compared += 1;
            changed += usize::from(world.bare.file(&head, path).unwrap() != before[path]);
        }
    }
    say(&format!(
        "attributes: {compared} files as git adds them, {changed} of them with other bytes than on disk"
    ));
    assert!(changed > 0);
}

#[tokio::test]
async fn filters_and_encodings_are_refused_with_the_file_that_sets_them() {
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    fs::write(elsewhere.path(), "secret/** filter=vault\n").unwrap();
    let other = elsewhere.path().to_str().unwrap();
    let cases = [
        (
            ".gitattributes",
            "secret/** filter=git-crypt diff=git-crypt\n",
            "filter=git-crypt",
            ".gitattributes has git pass it",
        ),
        (
            "secret/.gitattributes",
            "* filter=nbstripout\n",
            "filter=nbstripout",
            "secret/.gitattributes has git pass it",
        ),
        (
            ".git/info/attributes",
            "secret/** filter=lfs\n",
            "filter=lfs",
            "info/attributes gives it to Git LFS",
        ),
        (
            ".gitattributes",
            "[attr]vault filter=vault\nsecret/* vault\n",
            "filter=vault",
            ".gitattributes has git pass it",
        ),
        (
            ".gitattributes",
            "*.bin working-tree-encoding=UTF-16LE\n",
            "working-tree-encoding=UTF-16LE",
            ".gitattributes has git re-encode it",
        ),
        ("unused", "", "filter=vault", other),
    ];
    for (file, text, token, why) in cases {
        let world = World::new();
        world.write(file, text.as_bytes());
        if file == "unused" {
            world.git_in_clone(&["config", "core.attributesFile", other]);
        }
        world.write("secret/key.bin", b"secret");
        let refused = publication_of("a", pull_request(), &["secret/key.bin"]);
        let error = failed(world.publish_to(&world.by_token(), refused).await);
        let said = error.render();
        assert_eq!(error.exit_kind(), Kind::Publication);
        assert!(
            said.contains(token) && said.contains(why) && said.contains("cannot commit secret/key.bin"),
            "{said}"
        );
        assert!(said.contains("Next: ") && said.contains("secret/key.bin"), "{said}");
        assert_eq!(world.bare.head(BRANCH), None);
        // What it says known of a path that has no file yet.
        let known = [("'secret/*' of OUTPUTS".to_owned(), PathBuf::from("secret/output.bin"))];
        let text = world.checkout().check_attributes(&known).unwrap_err().render();
        assert!(text.contains("cannot commit 'secret/*' of OUTPUTS") && text.contains(token), "{text}");
    }
}

#[tokio::test]
async fn attributes_that_change_nothing_are_no_obstacle() {
    for attributes in [
        "* -filter\n",
        "* !filter\n",
        "* filter\n",
        "* working-tree-encoding=utf-8\n",
        "*.bin filter=lfs\n/model/*.bin -filter\n",
    ] {
        let world = World::new();
        world.write(".gitattributes", attributes.as_bytes());
        pushed(world.publish(pull_request()).await);
    }
}
