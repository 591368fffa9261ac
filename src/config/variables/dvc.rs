//! The outputs that DVC keeps.

use super::Requirement::{Default, Optional};
use super::ValueKind::{Each, Paths, Switch, Text};
use super::{TRAIN_AND_PUBLISH, ValueShape, VariableSpec, variable};

pub(super) const DVC_VARIABLES: &[VariableSpec] = &[
    variable(
        "DVC_OUTPUTS",
        Paths,
        Optional,
        TRAIN_AND_PUBLISH,
        "Files and folders to keep in a DVC remote. They go there from the machine; their pointers (`.dvc` files) are committed. No globs: DVC tracks each by its path.",
    ),
    variable(
        "DVC_REMOTE",
        Text,
        Optional,
        TRAIN_AND_PUBLISH,
        "Instead of the default remote of `.dvc/config`: a remote's name there, or an address such as `gdrive://<folder-id>/models`. A path starts from the clone; a rented machine is refused one. A repository that never ran `dvc init` gets its files.",
    ),
    variable(
        "DVC_TRUSTED_HOSTS",
        Each(ValueShape::Host),
        Optional,
        TRAIN_AND_PUBLISH,
        "Servers, as `host` or `host:port`, that get credentials of DVC's remotes although `.dvc/config` has them reached over plain HTTP or with `ssl_verify` off, or a pull request names them and its target branch does not.",
    ),
    variable(
        "DVC_PUSH",
        Switch,
        Default("false"),
        TRAIN_AND_PUBLISH,
        "Sends what `dvc.lock` and `.dvc` files name from DVC's own cache, as `dvc push` does: for a training that runs `dvc repro`.",
    ),
];
