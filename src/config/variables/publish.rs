//! The outputs' way to the repository, and how to reach Bitbucket.

use super::Requirement::{Default, Optional};
use super::ValueKind::{Author, Branch, Choice, Email, Path, Patterns, Switch, Text, Url};
use super::{EVERY_ACTION, TRAIN_AND_PUBLISH, VariableSpec, inherited, secret, variable};

pub(super) const PUBLISH_VARIABLES: &[VariableSpec] = &[
    variable(
        "PUBLISH",
        Choice(&["pull-request", "push", "none"]),
        Default("pull-request"),
        TRAIN_AND_PUBLISH,
        "`pull-request` commits to a branch of its own and opens a pull request; `push` commits to the target branch; `none` commits nothing.",
    ),
    variable(
        "TARGET_BRANCH",
        Branch,
        Optional,
        TRAIN_AND_PUBLISH,
        "The branch that the outputs are for. Default: the pipeline's branch, or the repository's main branch where the pipeline has none.",
    ),
    variable(
        "BRANCH",
        Branch,
        Optional,
        TRAIN_AND_PUBLISH,
        "The branch to commit to before the pull request. Default: `trainspot/<target branch>-<short commit>`.",
    ),
    variable("GIT_USER_NAME", Author, Default("trainspot"), TRAIN_AND_PUBLISH, "The commit's author."),
    variable(
        "GIT_USER_EMAIL",
        Email,
        Default("commits-noreply@bitbucket.org"),
        TRAIN_AND_PUBLISH,
        "The commit's author's e-mail.",
    ),
    variable(
        "COMMIT_MESSAGE",
        Text,
        Optional,
        TRAIN_AND_PUBLISH,
        "The commit's first line. Default: `Update <outputs>`.",
    ),
    variable(
        "SKIP_CI",
        Switch,
        Default("true"),
        TRAIN_AND_PUBLISH,
        "Adds `[skip ci]` to the commit's message, so that the commit starts no pipeline.",
    ),
    variable(
        "SIZE_LIMITS",
        Switch,
        Default("true"),
        TRAIN_AND_PUBLISH,
        "Whether a file of more than 100 MB, and a repository of 4 GB, are refused before the training: `false` for a repository whose administrator has lifted Bitbucket's limits.",
    ),
    variable(
        "METRICS",
        Patterns,
        Optional,
        TRAIN_AND_PUBLISH,
        "Files with metrics for the report: JSON, YAML, TOML, CSV or `key: value` text. Default: the outputs whose name starts with `metrics`.",
    ),
    variable("REPORT", Path, Optional, TRAIN_AND_PUBLISH, "A Markdown file of yours that opens the report."),
    variable(
        "REPORT_NAME",
        Text,
        Default("model"),
        TRAIN_AND_PUBLISH,
        "Tells this report from another step's, in the pull request's comments and the commit's build status.",
    ),
    secret(
        "BITBUCKET_ACCESS_TOKEN",
        "A repository, project or workspace access token with the scopes `repository:write` and `pullrequest:write`. Without any credential the branch is still pushed, but no pull request is opened. `ACTION: runner` needs `runner:write`, with `RUN_PIPELINE` also `pipeline:write`; `ACTION: sweep` needs `runner:write` and `pipeline:write`.",
    ),
    inherited(variable(
        "ATLASSIAN_ACCOUNT_EMAIL",
        Email,
        Optional,
        EVERY_ACTION,
        "Instead of an access token: the e-mail of an Atlassian account, with `ATLASSIAN_API_TOKEN`.",
    )),
    secret(
        "ATLASSIAN_API_TOKEN",
        "Instead of an access token: the account's API token with the same scopes.",
    ),
    variable(
        "BITBUCKET_API_URL",
        Url,
        Default("https://api.bitbucket.org/2.0"),
        EVERY_ACTION,
        "The address of Bitbucket's API.",
    ),
    variable(
        "PIPELINES_PROXY",
        Url,
        Default("http://host.docker.internal:29418"),
        TRAIN_AND_PUBLISH,
        "The proxy of Pipelines, through which git and Code Insights work where no credential is given.",
    ),
    variable("DEBUG", Switch, Default("false"), EVERY_ACTION, "Shows what is done in more detail."),
];
