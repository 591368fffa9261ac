//! Variables that look like misspelt ones of ours.

use super::variables::VARIABLES;

/// The known name that `unknown` was most likely meant to be.
///
/// Close means one slip in a short name and two in a longer one; case and `-` for `_` do not count, nor does the
/// tail that Pipelines gives to lists (`_COUNT`, `_0`).
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    let plain = list_base(unknown).to_ascii_uppercase().replace('-', "_");
    let slips = if plain.len() <= 5 { 1 } else { 2 };
    VARIABLES
        .iter()
        .map(|variable| (strsim::osa_distance(variable.name, &plain), variable.name))
        .filter(|(distance, name)| *distance <= slips && *name != unknown)
        .min()
        .map(|(_, name)| name)
}

/// `NAME` of `NAME_COUNT` or `NAME_12`.
pub(super) fn list_base(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((base, tail)) if tail == "COUNT" || tail.parse::<u32>().is_ok() => base,
        _ => name,
    }
}

/// `'a', 'b' or 'c'`.
pub(super) fn alternatives(choices: &[&str]) -> String {
    let quoted: Vec<String> = choices.iter().map(|choice| format!("'{choice}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_slips_are_found() {
        for (given, meant) in [
            ("OUTPUT", "OUTPUTS"),
            ("OUTPUT_0", "OUTPUTS"),
            ("TRAIN_COMAND", "TRAIN_COMMAND"),
            ("train_command", "TRAIN_COMMAND"),
            ("TRAIN-COMMAND", "TRAIN_COMMAND"),
            ("BITBUCKET_ACESS_TOKEN", "BITBUCKET_ACCESS_TOKEN"),
            ("CHECKPOINT", "CHECKPOINTS"),
            ("DEBGU", "DEBUG"),
        ] {
            assert_eq!(nearest(given), Some(meant), "{given}");
        }
    }

    #[test]
    fn what_machines_and_pipelines_set_is_not_taken_for_a_slip() {
        for name in [
            "PATH",
            "HOME",
            "HOSTNAME",
            "TERM",
            "PWD",
            "USER",
            "SHELL",
            "LANG",
            "SHLVL",
            "CI",
            "PORT",
            "TAGS",
            "DOCKER_HOST",
            "PIPELINES_JWT_TOKEN",
            "BITBUCKET_BRANCH",
            "BITBUCKET_STEP_OIDC_TOKEN",
            "GIT_BRANCH",
            "BITBUCKET_TAG",
            "BITBUCKET_COMMIT",
            "BITBUCKET_GIT_HTTP_ORIGIN",
            "AWS_ACCESS_KEY_ID",
            "EPOCHS",
        ] {
            assert_eq!(nearest(name), None, "{name}");
        }
    }
}
