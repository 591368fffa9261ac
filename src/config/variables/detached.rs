//! Runs that outlive their pipe: where they are kept, and who wakes them.

use super::Requirement::{Default, Optional};
use super::ValueKind::{One, Switch, Text, Url};
use super::{Provider, RUN_ACTIONS, STORE_ACTIONS, TRAIN_ONLY, ValueShape, VariableSpec, secret, variable};

pub(super) const DETACHED_VARIABLES: &[VariableSpec] = &[
    variable(
        "DETACH",
        Switch,
        Default("false"),
        TRAIN_ONLY,
        "Whether the step ends once the training has begun: the machine goes on alone, and this pipeline, run again with `RUN`, publishes the outputs. Needs `STORE`. So far with `CLOUD: local` alone.",
    ),
    variable(
        "STORE",
        One(ValueShape::Store),
        Optional,
        STORE_ACTIONS,
        "Where detached runs are kept: `s3://bucket/prefix`, in the region of `AWS_DEFAULT_REGION`; with `CLOUD: local` also the absolute path of a folder. `ACTION: sweep` wakes those that are due there.",
    ),
    variable(
        "STORE_ENDPOINT",
        Url,
        Optional,
        STORE_ACTIONS,
        "The address of the server that has the bucket, where that is not AWS but one that speaks like S3.",
    ),
    variable(
        "RUN",
        One(ValueShape::Run),
        Optional,
        RUN_ACTIONS,
        "The id of a detached run. With `DETACH` the pipe does what that run needs now; without it, or with the text `$TRAINSPOT_RUN` where that variable is not defined, a new run begins.",
    ),
    VariableSpec {
        actions: TRAIN_ONLY,
        ..secret(
            "WAKE_TOKEN",
            "A token with the scope `pipeline:write`, by which the machine of a detached run starts this pipeline again. The machine keeps it in memory alone.",
        )
    },
    VariableSpec {
        providers: &[Provider::Aws],
        ..variable(
            "WAKE_BUS",
            One(ValueShape::EventBus),
            Optional,
            TRAIN_ONLY,
            "Instead of that token on the machine: the name or ARN of an EventBridge bus, to which the machine sends an event by `INSTANCE_PROFILE` when the run is due.",
        )
    },
    variable(
        "WAKE_PIPELINE",
        Text,
        Optional,
        TRAIN_ONLY,
        "The name of the custom pipeline that wakes a detached run. Default: this one, as Bitbucket names it.",
    ),
];
