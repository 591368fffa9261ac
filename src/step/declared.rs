//! What the clone's `bitbucket-pipelines.yml` says of the step that runs the pipe.
//!
//! Pipelines does not tell a step which one of the file it is: its id is made for the run, and a custom
//! pipeline's name is in no variable. The step is known by its pipe, whose values are those of the
//! environment where the file has them as plain text. Of several such steps the one with the least time
//! counts: whoever ends early loses less.

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use trainspot_transfer::read_beneath;

const PIPELINES_FILE: &str = "bitbucket-pipelines.yml";
/// A longer file is none that a person writes.
const FILE_LIMIT_BYTES: u64 = 1 << 20;
/// What Pipelines gives a step for which nothing is set.
const DEFAULT_MAX_TIME_MINUTES: u64 = 120;
/// The most that Pipelines gives a step.
pub(super) const LONGEST_MAX_TIME_MINUTES: u64 = 720;
/// The multiplier of the largest `size`.
const LARGEST_SIZE: u32 = 32;

/// What is declared of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    /// Pipelines kills the step after this time.
    pub(crate) max_time: Duration,
    /// Whether the file sets that; else it is what Pipelines gives every step.
    pub(crate) is_set: bool,
    /// How many build minutes a minute of the step counts.
    pub(crate) size: u32,
    /// Whether the step runs on a runner of the workspace's own, whose minutes are not counted.
    pub(crate) is_self_hosted: bool,
}

/// The step in the clone at `clone` whose pipe has these values, `given` as the environment has them. Of
/// several the one called `name`, if that is known. None without such a file, or where the file has no such
/// step.
pub(crate) fn declared(
    clone: &Path,
    given: &BTreeMap<String, String>,
    name: Option<&str>,
) -> Option<Declared> {
    in_text(&text(clone)?, given, name)
}

fn text(clone: &Path) -> Option<String> {
    String::from_utf8(read_beneath(clone, Path::new(PIPELINES_FILE), FILE_LIMIT_BYTES).ok()?).ok()
}

fn in_text(text: &str, given: &BTreeMap<String, String>, name: Option<&str>) -> Option<Declared> {
    let file: Value = serde_saphyr::from_str(text).ok()?;
    let mut steps = Vec::new();
    collect(&file["pipelines"], &mut steps);
    let mut likely = likely(&steps, given);
    let is_called = |step: &&Value| name.is_some() && step["name"].as_str() == name;
    if likely.iter().any(is_called) {
        likely.retain(is_called);
    }
    let declared = likely.into_iter().map(|step| Declared::of(step, &file["options"]));
    declared.min_by_key(|declared| declared.max_time)
}

/// All steps, wherever they stand: in a list, in parallel, in a stage, or at the end.
fn collect<'a>(value: &'a Value, steps: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                match name.as_str() {
                    "step" | "final" if inner["script"].is_array() => steps.push(inner),
                    _ => collect(inner, steps),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, steps)),
        _ => {}
    }
}

/// The steps that can be this one: those with the most values in common and none against it; else those that
/// seem to run this program, by their pipe or by a command.
fn likely<'a>(steps: &[&'a Value], given: &BTreeMap<String, String>) -> Vec<&'a Value> {
    let common = |step: &Value| pipes(step).filter_map(|pipe| in_common(&pipe["variables"], given)).max();
    let most = steps.iter().filter_map(|step| common(step)).max().unwrap_or(0);
    if most > 0 {
        return steps.iter().copied().filter(|step| common(step) == Some(most)).collect();
    }
    let by_pipe: Vec<_> = steps.iter().copied().filter(|step| pipes(step).any(is_ours)).collect();
    let by_command = || steps.iter().copied().filter(|step| commands(step).any(names_us)).collect();
    if by_pipe.is_empty() { by_command() } else { by_pipe }
}

fn script(step: &Value) -> impl Iterator<Item = &Value> {
    ["script", "after-script"].into_iter().filter_map(|part| step[part].as_array()).flatten()
}

fn pipes(step: &Value) -> impl Iterator<Item = &Value> {
    script(step).filter(|item| item["pipe"].is_string())
}

fn commands(step: &Value) -> impl Iterator<Item = &str> {
    script(step).filter_map(Value::as_str)
}

fn names_us(text: &str) -> bool {
    text.contains(env!("CARGO_PKG_NAME"))
}

fn is_ours(pipe: &Value) -> bool {
    let by_variables = ["TRAIN_COMMAND", "OUTPUTS"].iter().any(|name| !pipe["variables"][name].is_null());
    by_variables || pipe["pipe"].as_str().is_some_and(names_us)
}

/// How many of a pipe's values the environment has as well; none if it has another one.
fn in_common(variables: &Value, given: &BTreeMap<String, String>) -> Option<usize> {
    let mut same = 0;
    for (name, value) in variables.as_object()? {
        for (name, text) in passed(name, value) {
            // A shell fills in the rest, and what nobody gave may be empty there.
            let is_plain = !text.contains(['$', '`', '\\']);
            match given.get(&name) {
                Some(given) if is_plain && given.trim() == text.trim() => same += 1,
                Some(_) if is_plain => return None,
                _ => {}
            }
        }
    }
    Some(same)
}

/// The environment's variables that Pipelines makes of one of a pipe's.
fn passed(name: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::String(text) => vec![(name.to_owned(), text.clone())],
        Value::Array(items) => {
            let count = (format!("{name}_COUNT"), items.len().to_string());
            let items = items.iter().enumerate().filter_map(|(index, item)| Some((index, item.as_str()?)));
            let items = items.map(|(index, item)| (format!("{name}_{index}"), item.to_owned()));
            std::iter::once(count).chain(items).collect()
        }
        _ => Vec::new(),
    }
}

impl Declared {
    fn of(step: &Value, options: &Value) -> Self {
        let set = [step, options].iter().find_map(|level| level["max-time"].as_u64());
        let set = set.filter(|minutes| *minutes > 0);
        let minutes = set.unwrap_or(DEFAULT_MAX_TIME_MINUTES).min(LONGEST_MAX_TIME_MINUTES);
        let size =
            [step, options].iter().find_map(|level| level["size"].as_str()?.strip_suffix('x')?.parse().ok());
        Self {
            max_time: Duration::from_mins(minutes),
            is_set: set.is_some(),
            size: size.unwrap_or(1).clamp(1, LARGEST_SIZE),
            is_self_hosted: !step["runs-on"].is_null(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn minutes(text: &str, pairs: &[(&str, &str)], name: Option<&str>) -> Option<u64> {
        in_text(text, &given(pairs), name).map(|declared| declared.max_time.as_secs() / 60)
    }

    const MANY: &str = "
options:
  max-time: 45
  size: 2x
definitions:
  steps:
    - step: &train
        name: Train
        max-time: 300
        size: 4x
        script:
          - pipe: trainspot/trainspot:0.1.0
            variables: &all {TRAIN_COMMAND: python train.py, OUTPUTS: [a.bin, '$MODEL'], TOKEN: $TOKEN}
pipelines:
  default:
    - step: {script: [make test]}
    - parallel:
        steps:
          - step: *train
          - step: {script: [make]}
  pull-requests:
    '**':
      - stage:
          steps:
            - step: {<<: *train, name: Quick, max-time: 20}
  custom:
    long:
      - step:
          max-time: 720
          script:
            - echo hello
            - pipe: docker://acme/own:1
              variables: {<<: *all, TRAIN_COMMAND: [python get.py, python train.py --long]}
    other:
      - step: {script: [{pipe: 'trainspot/trainspot:0.1.0', variables: {ACTION: sweep}}]}
";

    #[test]
    fn a_step_is_known_by_the_values_of_its_pipe() {
        let long = [("TRAIN_COMMAND_COUNT", "2"), ("TRAIN_COMMAND_0", "python get.py")];
        let long =
            [&long[..], &[("TRAIN_COMMAND_1", "python train.py --long"), ("ACTION", "train")]].concat();
        assert_eq!(minutes(MANY, &long, None), Some(720));
        // By anchors, aliases and merge keys. Of two alike the shorter one counts, unless the name is known.
        let short = [("TRAIN_COMMAND", "python train.py\n"), ("ACTION", "train"), ("OUTPUTS_COUNT", "2")];
        let short = [&short[..], &[("OUTPUTS_0", "a.bin"), ("OUTPUTS_1", "m.bin")]].concat();
        assert_eq!(minutes(MANY, &short, None), Some(20));
        assert_eq!(minutes(MANY, &short, Some("Train")), Some(300));
        assert_eq!(minutes(MANY, &short, Some("Somebody else's")), Some(20));
        assert_eq!(minutes(MANY, &[("ACTION", "sweep")], None), Some(45), "of the options");
        // No step has this command: all that seem to be of this program may be it.
        assert_eq!(minutes(MANY, &[("TRAIN_COMMAND", "make"), ("ACTION", "train")], None), Some(20));
        let train = in_text(MANY, &given(&short), Some("Train")).unwrap();
        assert_eq!((train.is_set, train.size), (true, 4));
        assert_eq!(in_text(MANY, &given(&[("ACTION", "sweep")]), None).unwrap().size, 2);
    }

    #[test]
    fn without_a_max_time_it_is_that_of_pipelines() {
        let step = |more: &str| {
            let text = format!("pipelines: {{default: [{{step: {{script: [./trainspot]{more}}}}}]}}");
            in_text(&text, &given(&[]), None).unwrap()
        };
        let usual =
            Declared { max_time: Duration::from_hours(2), is_set: false, size: 1, is_self_hosted: false };
        assert_eq!(step(""), usual);
        for nonsense in [", max-time: -5", ", max-time: soon, size: huge", ", max-time: 0, size: 0x"] {
            assert_eq!(step(nonsense), usual, "{nonsense}");
        }
        assert_eq!(step(", max-time: 2").max_time, Duration::from_mins(2));
        assert_eq!(step(", max-time: 99999999999").max_time, Duration::from_hours(12));
        assert_eq!(step(", size: 4000000000x").size, 32);
        assert!(step(", runs-on: [self.hosted]").is_self_hosted);
    }

    #[test]
    fn what_is_no_pipelines_file_says_nothing() {
        for text in
            ["", "- a", "pipelines: 7", "pipelines: {default: [{step: {script: [make]}}]}", "{", "a: *b"]
        {
            assert_eq!(minutes(text, &[("ACTION", "train")], None), None, "{text}");
        }
    }

    #[test]
    fn the_file_is_read_in_the_clone_alone() {
        let (clone, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = "pipelines: {default: [{step: {script: [./trainspot]}}]}";
        std::fs::write(elsewhere.path().join(PIPELINES_FILE), file).unwrap();
        let read = || declared(clone.path(), &given(&[]), None);
        assert_eq!(read(), None);
        std::os::unix::fs::symlink(elsewhere.path().join(PIPELINES_FILE), clone.path().join(PIPELINES_FILE))
            .unwrap();
        assert_eq!(read(), None);
        std::fs::remove_file(clone.path().join(PIPELINES_FILE)).unwrap();
        std::fs::write(clone.path().join(PIPELINES_FILE), file).unwrap();
        assert!(read().is_some());
    }
}
