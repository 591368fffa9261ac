//! The outputs that DVC keeps.

use super::Kind::{Patterns, Switch, Text};
use super::Presence::{Default, Optional};
use super::{BOTH, Variable, variable};

pub(super) const TABLE: &[Variable] = &[
    variable(
        "DVC_OUTPUTS",
        Patterns,
        Optional,
        BOTH,
        "Files and folders to keep in a DVC remote. They go there from the machine; their pointers (`.dvc` files) are committed. No globs: DVC tracks each by its path.",
    ),
    variable(
        "DVC_REMOTE",
        Text,
        Optional,
        BOTH,
        "Instead of the default remote of `.dvc/config`: a remote's name there, or an address such as `gdrive://<folder-id>/models`. A path starts from the clone; a rented machine is refused one. A repository that never ran `dvc init` gets its files.",
    ),
    variable(
        "DVC_PUSH",
        Switch,
        Default("false"),
        BOTH,
        "Sends what `dvc.lock` and `.dvc` files name from DVC's own cache, as `dvc push` does: for a training that runs `dvc repro`.",
    ),
];
