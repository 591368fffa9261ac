//! Variables that look like misspelt ones of ours.

use super::variables::VARIABLE_TABLE;

/// A variable that steps often have. Its name is close to `TAGS`, but no misspelling of it.
const INNOCENT_NAME: &str = "TAG";

/// The known name that `unknown` was most likely meant to be.
///
/// Close means one slip in a short name and two in a longer one; case and `-` for `_` do not count, nor does
/// the tail that Pipelines gives to lists (`_COUNT`, `_0`). Of names that are equally close, one more or less
/// letter at the end is the likelier slip.
pub(super) fn nearest(unknown: &str) -> Option<&'static str> {
    let plain = list_base(unknown).to_ascii_uppercase().replace('-', "_");
    if plain == INNOCENT_NAME {
        return None;
    }
    let slips = if plain.len() <= 5 { 1 } else { 2 };
    let of_its_end = |name: &str| name.starts_with(&plain) || plain.starts_with(name);
    VARIABLE_TABLE
        .iter()
        .map(|variable| (strsim::osa_distance(variable.name, &plain), variable.name))
        .filter(|(distance, name)| *distance <= slips && *name != unknown)
        .min_by_key(|(distance, name)| (*distance, !of_its_end(name), *name))
        .map(|(_, name)| name)
}

/// The name of the list that a variable belongs to: `NAME` for `NAME_COUNT` and `NAME_12`.
pub(super) fn list_base(name: &str) -> &str {
    match name.rsplit_once('_') {
        Some((base, tail)) if tail == "COUNT" || tail.parse::<u32>().is_ok() => base,
        _ => name,
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
            ("GPUS", "GPU"),
            ("CPU", "CPUS"),
            ("INSTANCE_TYPES", "INSTANCE_TYPE"),
            ("AWS_DEFAULT_REGIONS", "AWS_DEFAULT_REGION"),
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
            "TAG",
            "TAG_0",
            "STAGE",
            "SSH_AUTH_SOCK",
            "DOCKER_HOST",
            "PIPELINES_JWT_TOKEN",
            "BITBUCKET_BRANCH",
            "BITBUCKET_STEP_OIDC_TOKEN",
            "GIT_BRANCH",
            "BITBUCKET_TAG",
            "BITBUCKET_COMMIT",
            "BITBUCKET_GIT_HTTP_ORIGIN",
            "AWS_REGION",
            "AWS_PROFILE",
            "AWS_ROLE_ARN",
            "EPOCHS",
        ] {
            assert_eq!(nearest(name), None, "{name}");
        }
    }
}
