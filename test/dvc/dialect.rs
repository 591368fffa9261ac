//! The dialect of `.dvc/config`, beside the real configobj and DVC's own reader.

use super::config::load;
use super::oracle::Oracle;
use crate::support::say;
use serde_json::json;
use std::fs;

/// Texts that configobj quotes in every way that it knows, and those that it reads in odd ones.
fn odd_text(random: &mut fastrand::Rng) -> String {
    let bits = [
        "a",
        "b c",
        ",",
        "#",
        "'",
        "\"",
        "=",
        "[",
        "]",
        "%",
        "\n",
        " ",
        "\t",
        ";",
        "é",
        "s3://bucket/x",
        "\\",
        "copy",
        "''",
        "x",
    ];
    (0..random.usize(..6)).map(|_| random.choice(bits).unwrap()).collect()
}

/// A file that configobj writes, or lines as people do.
fn odd_config(random: &mut fastrand::Rng, oracle: &mut Oracle) -> Option<String> {
    let names = [("core", ""), ("cache", ""), ("remote", "a"), ("remote", "B c"), ("db", "x"), ("plots", "")];
    if random.bool() {
        let mut sections = Vec::new();
        for (kind, name) in names {
            let mut values = serde_json::Map::new();
            for number in 0..random.usize(..4) {
                let value = if random.u8(..4) == 0 {
                    json!((0..random.usize(..4)).map(|_| odd_text(random)).collect::<Vec<_>>())
                } else {
                    json!(odd_text(random))
                };
                values.insert(format!("{}{number}", random.choice(["key", "Key"]).unwrap()), value);
            }
            sections.push(json!([kind, name, values]));
        }
        // It refuses to write some values, such as both kinds of triple quotes in one.
        let text = oracle.ask("config_text", json!({"sections": sections})).ok()?;
        return Some(text.as_str().unwrap().to_owned());
    }
    let lines = [
        "[core]",
        "['remote \"a\"']",
        "[remote \"A\"]",
        "[remote]",
        "  [[b]]",
        "[[[c]]]",
        "[ plots ] # x",
        "[DEFAULT]",
        "[db \"x\"]",
        "key = %(other)s",
        "other = 'x'",
        "= y",
        "no value",
        "key = ",
        "key = ,",
        "key = a,",
        "'q k' = 1",
        "url = \"\"\"a",
        "b\"\"\" # c",
        "url = '''one'''",
        "# comment",
        "",
        "type = reflink, hardlink,copy",
    ];
    let line = |random: &mut fastrand::Rng| match random.u8(..3) {
        0 => format!("k{} = {}", random.u8(..9), odd_text(random).replace('\n', " ")),
        _ => random.choice(lines).unwrap().to_owned(),
    };
    let end = random.choice(["\n", "\r\n"]).unwrap();
    Some("[core]".to_owned() + end + &(0..random.usize(1..9)).map(|_| line(random) + end).collect::<String>())
}

/// What configobj writes is read as DVC reads it, and so is what people write; what it cannot read is
/// refused.
#[test]
fn configurations_are_read_as_configobj_reads_them() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    let seed = std::env::var("DVC_SEED").ok().map_or(5, |seed| seed.parse().unwrap());
    let count = if std::env::var_os("DVC_TREES").is_some() { 20_000 } else { 1500 };
    let mut random = fastrand::Rng::with_seed(seed);
    let (mut read, mut refused) = (0, 0);
    for round in 0..count {
        let Some(text) = odd_config(&mut random, &mut oracle) else { continue };
        let theirs = oracle.ask("config_file", json!({"text": text}));
        let mine = trainspot_dvc::DvcConfig::parse(&text);
        match (mine, theirs) {
            (Ok(mine), Ok(theirs)) => {
                let mine = serde_json::to_value(mine).unwrap();
                assert_eq!(mine, theirs, "seed {seed}, round {round}:\n{text}");
                read += 1;
            }
            (Err(_), Err(_)) => refused += 1,
            (Ok(_), Err(error)) => panic!("seed {seed}, round {round}: DVC refuses: {error}\n{text}"),
            (Err(error), Ok(_)) => {
                panic!("seed {seed}, round {round}: we refuse: {}\n{text}", error.render())
            }
        }
    }
    assert!(read * 2 > refused, "{read} read, {refused} refused");
    say(&format!(
        "seed {seed}: {read} configurations as configobj reads them, {refused} refused as it refuses them"
    ));
}

/// `dvc config cache.type reflink,hardlink,copy` writes a list.
#[test]
fn what_dvc_config_writes_is_read() {
    let mut oracle = match Oracle::start() {
        Ok(oracle) => oracle,
        Err(reason) => return skip::skip(&reason),
    };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    oracle.ask("init", json!({"root": root, "remote": "../store"})).unwrap();
    let pairs = json!([["cache.type", "reflink,hardlink,copy"], ["remote.trainspot.type", "hardlink, copy"]]);
    oracle.ask("configure", json!({"root": root, "pairs": pairs, "level": "project"})).unwrap();
    let local = json!([["remote.trainspot.url", "../other, store"]]);
    oracle.ask("configure", json!({"root": root, "pairs": local, "level": "local"})).unwrap();
    let text = fs::read_to_string(root.join(".dvc/config")).unwrap();
    assert!(
        text.contains("type = reflink, hardlink, copy") || text.contains("reflink,hardlink,copy"),
        "{text}"
    );
    let settings = load(root, None).choose(None).unwrap();
    assert_eq!(settings.url, "../../other, store");
    let url = settings.folder.join(&settings.url);
    assert_eq!(url, root.join(".dvc/../../other, store"));
}
