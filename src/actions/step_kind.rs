//! What the clone's `bitbucket-pipelines.yml` says of the step that the pipe runs in, as far as its minutes are concerned.

use serde_json::Value;
use std::path::Path;

/// A longer file is no definition of pipelines.
const LONGEST_DEFINITION_BYTES: u64 = 1 << 20;
/// The sizes that Bitbucket knows. Source: support.atlassian.com/bitbucket-cloud/docs/step-options, "Size".
const SIZES: [u32; 6] = [1, 2, 4, 8, 16, 32];

/// How the minutes of a step are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepKind {
    /// How many minutes each of its minutes counts as.
    pub(super) size: u32,
    /// Whether it runs on the workspace's own runner, whose minutes are not counted.
    pub(super) is_self_hosted: bool,
}

impl StepKind {
    const USUAL: Self = Self { size: 1, is_self_hosted: false };

    /// The kind of the step of the clone's definition that runs this pipe: of several, the one whose minutes cost most.
    /// Where there is none, a usual one.
    pub(super) fn of_clone(clone_dir: &Path) -> Self {
        let file = clone_dir.join("bitbucket-pipelines.yml");
        let is_short = std::fs::metadata(&file).is_ok_and(|file| file.len() <= LONGEST_DEFINITION_BYTES);
        let text = if is_short { std::fs::read_to_string(file).unwrap_or_default() } else { String::new() };
        Self::of_definition(&text)
    }

    fn of_definition(text: &str) -> Self {
        let definition: Value = serde_saphyr::from_str(text).unwrap_or_default();
        let usual = size(&definition["options"]["size"]).unwrap_or(1);
        let mut steps = Vec::new();
        collect(&definition, &mut steps);
        let kind = |step: &&Value| Self {
            size: size(&step["size"]).unwrap_or(usual),
            is_self_hosted: !step["runs-on"].is_null(),
        };
        let dearest = steps.iter().map(kind).max_by_key(|kind| (!kind.is_self_hosted, kind.size));
        dearest.unwrap_or(Self { size: usual, ..Self::USUAL })
    }
}

fn size(value: &Value) -> Option<u32> {
    let size = value.as_str()?.strip_suffix('x')?.parse().ok()?;
    SIZES.contains(&size).then_some(size)
}

/// The steps whose script has this pipe, wherever in the definition they stand.
fn collect<'a>(value: &'a Value, steps: &mut Vec<&'a Value>) {
    let is_ours = |command: &Value| command["pipe"].as_str().is_some_and(|pipe| pipe.contains("trainspot"));
    if value["script"].as_array().is_some_and(|script| script.iter().any(is_ours)) {
        steps.push(value);
    }
    match value {
        Value::Object(map) => map.values().for_each(|inner| collect(inner, steps)),
        Value::Array(list) => list.iter().for_each(|inner| collect(inner, steps)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPE: &str = "script: [ { pipe: 'trainspot/trainspot:0.1.0', variables: { A: b } } ]";

    fn kind(text: &str) -> (u32, bool) {
        let kind = StepKind::of_definition(text);
        (kind.size, kind.is_self_hosted)
    }

    #[test]
    fn the_step_with_this_pipe_counts_and_the_dearest_of_several() {
        let step = |more: &str| format!("    - step: {{ {more} {PIPE} }}\n");
        let of = |steps: &[String]| kind(&format!("pipelines:\n  default:\n{}", steps.concat()));
        assert_eq!(of(&[step("")]), (1, false));
        assert_eq!(of(&[step("size: 4x, ")]), (4, false));
        assert_eq!(of(&[step(""), step("size: 8x, "), step("size: 2x, ")]), (8, false));
        assert_eq!(of(&[step("runs-on: [self.hosted], ")]), (1, true));
        assert_eq!(of(&[step("runs-on: [self.hosted], size: 8x, "), step("size: 2x, ")]), (2, false));
        let other = "    - step: { size: 16x, script: [ make ] }\n".to_owned();
        assert_eq!(of(&[other, step("")]), (1, false));
        assert_eq!(
            kind(&format!("options: {{ size: 2x }}\npipelines:\n  custom:\n    train:\n{}", step(""))),
            (2, false)
        );
    }

    #[test]
    fn what_is_no_definition_says_nothing() {
        for text in ["", "[", "size: 3x", "options: { size: 3x }", "options: { size: 2 }", "- - -"] {
            assert_eq!(kind(text), (1, false), "{text}");
        }
        assert_eq!(StepKind::of_clone(Path::new("/nowhere")), StepKind::USUAL);
    }
}
