//! The environment as Pipelines passes it: scalars, lists as `NAME_COUNT` and `NAME_0…`, empty meaning
//! missing.

use super::variables::{ValueKind, VariableSpec};
use std::collections::BTreeMap;

/// The most items of a list. Pipelines itself sets no more, so that a larger `NAME_COUNT` is a mistake.
const LONGEST_LIST: usize = 1000;

/// The environment's variables, by name.
pub(super) struct Environment(pub(super) BTreeMap<String, String>);

impl Environment {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// Takes a variable whose value is the name of `source` in shell's writing, `$SOURCE`, for missing: that
    /// is what is left where `source` is not defined, and nothing has expanded it. The default in `pipe.yml`
    /// of a variable that the repository does not define is such a value, with the variable's own name.
    pub(super) fn forget_unexpanded(&mut self, name: &str, source: &str) {
        let is_default = self.get(name).is_some_and(|value| {
            let inside = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            inside.or_else(|| value.strip_prefix('$')) == Some(source)
        });
        if is_default {
            self.0.remove(name);
        }
    }

    /// Gives `name` the value of `other`, if `name` is missing.
    pub(super) fn let_stand_in(&mut self, other: &str, name: &str) {
        if let (None, Some(value)) = (self.get(name), self.get(other).map(str::to_owned)) {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// The non-empty items of a variable's value; none when it is missing.
    ///
    /// The error is the whole sentence that follows the variable's name.
    pub(super) fn items(&self, variable: &VariableSpec) -> Result<Vec<String>, String> {
        let count = format!("{}_COUNT", variable.name);
        match (self.get(&count), self.get(variable.name)) {
            (Some(_), _) if !variable.kind.is_list() => {
                Err("is given as a list; it takes one value".to_owned())
            }
            (Some(count), _) => self.listed(variable.name, count),
            (None, Some(text)) => Ok(split(variable.kind, text)?),
            (None, None) => Ok(Vec::new()),
        }
    }

    fn listed(&self, name: &str, count: &str) -> Result<Vec<String>, String> {
        let wrong =
            || format!("is a list, but {name}_COUNT is '{count}', not the number of {name}_0, {name}_1, …");
        let count: usize = count.parse().map_err(|_| wrong())?;
        if count > LONGEST_LIST {
            return Err(wrong());
        }
        let missing: Vec<String> = (0..count)
            .map(|index| format!("{name}_{index}"))
            .filter(|name| !self.0.contains_key(name))
            .collect();
        if let Some(first) = missing.first() {
            return Err(format!("is a list, but {first} is missing and {name}_COUNT is '{count}'"));
        }
        Ok((0..count).filter_map(|index| self.get(&format!("{name}_{index}"))).map(str::to_owned).collect())
    }
}

/// The items of a list that came in one variable, as with `docker run`: JSON, lines, or commas.
///
/// Commands are never split, nor are commas inside a glob's braces.
fn split(kind: ValueKind, text: &str) -> Result<Vec<String>, String> {
    if !kind.is_list() || (kind == ValueKind::Script && !looks_like_json_list(text)) {
        return Ok(vec![text.to_owned()]);
    }
    let parts: Vec<String> = if looks_like_json_list(text) {
        serde_json::from_str(text).map_err(|error| match kind {
            // It may hold values that are secret, and the error may quote them.
            ValueKind::Environment => "(not shown) is not a JSON list of texts".to_owned(),
            _ => format!("'{text}' is not a JSON list of texts: {error}"),
        })?
    } else if text.contains('\n') {
        text.lines().map(str::to_owned).collect()
    } else {
        split_commas(text)
    };
    Ok(parts.iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect())
}

fn looks_like_json_list(text: &str) -> bool {
    text.starts_with("[\"") || text == "[]"
}

fn split_commas(text: &str) -> Vec<String> {
    let (mut parts, mut depth) = (vec![String::new()], 0_i32);
    for letter in text.chars() {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        match parts.last_mut() {
            Some(part) if letter != ',' || depth > 0 => part.push(letter),
            _ => parts.push(String::new()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::variables::find;

    fn items(name: &str, pairs: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let map = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Environment(map).items(find(name).unwrap())
    }

    #[test]
    fn lists_come_in_every_form_that_people_use() {
        let expected = Ok(vec!["a.bin".to_owned(), "b/*.{json,png}".to_owned()]);
        for pairs in [
            &[("OUTPUTS_COUNT", "2"), ("OUTPUTS_0", "a.bin"), ("OUTPUTS_1", "b/*.{json,png}")] as &[_],
            &[("OUTPUTS", "a.bin, b/*.{json,png}")],
            &[("OUTPUTS", "a.bin\n  b/*.{json,png}\n\n")],
            &[("OUTPUTS", r#"["a.bin", "b/*.{json,png}"]"#)],
        ] {
            assert_eq!(items("OUTPUTS", pairs), expected, "{pairs:?}");
        }
    }

    #[test]
    fn commands_are_not_split_at_commas_or_lines() {
        let script = "python -c 'print(1, 2)'\npython train.py";
        assert_eq!(items("TRAIN_COMMAND", &[("TRAIN_COMMAND", script)]), Ok(vec![script.to_owned()]));
    }

    #[test]
    fn empty_means_missing() {
        assert_eq!(items("OUTPUTS", &[("OUTPUTS", "  ")]), Ok(vec![]));
        assert_eq!(
            items("OUTPUTS", &[("OUTPUTS_COUNT", "2"), ("OUTPUTS_0", ""), ("OUTPUTS_1", "x")]),
            Ok(vec!["x".into()])
        );
    }
}
