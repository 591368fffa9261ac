//! What must hold of any two changes of a file of DVC's or of git's that are merged. The program `dvc_merge`
//! of `fuzz/` looks for those of which it does not.

#![allow(clippy::missing_panics_doc, clippy::unwrap_used, reason = "what does not hold is a panic")]

use super::{ignore_lines, stages};
use serde_json::{Map, Value};

/// Merges three texts, with a byte 0 between them: the common one, ours and theirs.
pub fn merge(input: &[u8]) {
    let mut texts = input.splitn(3, |byte| *byte == 0);
    let [base, ours, theirs] = [(); 3].map(|()| texts.next().unwrap_or_default());
    check_lines(base, ours, theirs);
    let texts = [base, ours, theirs].map(std::str::from_utf8);
    let [Ok(base), Ok(ours), Ok(theirs)] = texts else { return };
    for ours_may_replace in [false, true] {
        if let Some(merged) = stages::merge(base, ours, theirs, &mut |_| ours_may_replace) {
            check_sides(&values(&merged), &values(ours), &values(theirs));
        }
    }
    // Who changed nothing has no say.
    for (ours, theirs, only) in [(base, theirs, theirs), (ours, base, ours)] {
        if let Some(merged) = stages::merge(base, ours, theirs, &mut |_| false) {
            assert_eq!(values(&merged), values(only), "{merged:?} of {base:?}, {ours:?}, {theirs:?}");
        }
    }
}

fn values(text: &str) -> Map<String, Value> {
    if text.trim().is_empty() { Map::new() } else { serde_saphyr::from_str(text).unwrap() }
}

/// What is merged says nothing that neither side says.
fn check_sides(merged: &Map<String, Value>, ours: &Map<String, Value>, theirs: &Map<String, Value>) {
    let is_of = |side: Option<&Value>, value: &Value| side == Some(value);
    for (name, value) in merged {
        let sides = [ours, theirs].map(|side| side.get(name));
        let below = |key: &str, value: &Value| {
            sides.iter().any(|side| is_of(side.and_then(|side| side.get(key)), value))
        };
        let of_either = value.as_object().is_some_and(|map| map.iter().all(|(key, value)| below(key, value)));
        assert!(of_either || sides.iter().any(|side| is_of(*side, value)), "{name}: {value}");
    }
}

/// Lines are of either side, those that we added are there, and those that we removed are not.
fn check_lines(base: &[u8], ours: &[u8], theirs: &[u8]) {
    let Some(merged) = ignore_lines::merge(base, ours, theirs) else { return };
    let lines = |text| <[u8]>::split(text, |byte| *byte == b'\n').collect::<Vec<_>>();
    let (base, ours, theirs, merged) = (lines(base), lines(ours), lines(theirs), lines(&merged));
    let is_there = |line: &&[u8]| line.is_empty() || merged.contains(line);
    assert!(merged.iter().all(|line| line.is_empty() || ours.contains(line) || theirs.contains(line)));
    assert!(ours.iter().filter(|line| !base.contains(line)).all(is_there));
    assert!(
        base.iter()
            .filter(|line| !ours.contains(line) && !line.is_empty())
            .all(|line| !merged.contains(line))
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn it_holds_of_the_seeds() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/dvc_merge");
        for seed in std::fs::read_dir(seeds).unwrap() {
            merge(&std::fs::read(seed.unwrap().path()).unwrap());
        }
    }
}
