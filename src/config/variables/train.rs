//! What to do, and the training.

use super::Requirement::{Default, Optional, Required};
use super::ValueKind::{Choice, Count, Environment, Patterns, Script, Switch};
use super::{
    EVERY_ACTION, HOUR_SECONDS, RUN_ACTIONS, TRAIN_AND_PUBLISH, TRAIN_AND_RUNNER, TRAIN_ONLY, VariableSpec,
    seconds, variable,
};

pub(super) const TRAIN_VARIABLES: &[VariableSpec] = &[
    variable(
        "ACTION",
        Choice(&["train", "publish", "runner", "sweep", "status", "stop"]),
        Default("train"),
        EVERY_ACTION,
        "`train` runs the training and publishes its outputs; `publish` commits outputs that an earlier step left in the clone; `runner` rents a machine as a self-hosted runner for later steps; `sweep` removes what runs that are over left at AWS and in Bitbucket's list of runners; `status` tells how the repository's detached runs stand; `stop` ends one.",
    ),
    variable(
        "CLOUD",
        Choice(&["aws", "local"]),
        Default("aws"),
        RUN_ACTIONS,
        "Where to train: `aws` rents a machine on EC2; `local` is a process on the machine that runs the pipe.",
    ),
    variable(
        "TRAIN_COMMAND",
        Script,
        Required,
        TRAIN_ONLY,
        "The training's commands, run by the machine's shell in the repository's folder. The first that fails ends the training.",
    ),
    variable(
        "TRAIN_ENV",
        Environment,
        Optional,
        TRAIN_ONLY,
        "Variables that the training gets: `NAME` passes on the pipe's own variable, `NAME=value` sets one. It gets no other of yours.",
    ),
    variable(
        "INCLUDE",
        Patterns,
        Optional,
        TRAIN_ONLY,
        "Files to send to the machine although git ignores them.",
    ),
    variable(
        "OUTPUTS",
        Patterns,
        Optional,
        TRAIN_AND_PUBLISH,
        "The files to commit: paths or globs, `**` included. Each must match something. Needed unless DVC keeps all outputs.",
    ),
    variable(
        "CHECKPOINTS",
        Patterns,
        Optional,
        TRAIN_ONLY,
        "The files from which the training can go on. They are saved every `CHECKPOINT_INTERVAL`, and restored with `TRAINSPOT_RESUME=1` on the next machine when one is lost.",
    ),
    variable(
        "RESUME",
        Switch,
        Default("false"),
        TRAIN_ONLY,
        "Whether to go on from files of `CHECKPOINTS` that an earlier step, or its artifacts, left in the clone: they are sent, and `TRAINSPOT_RESUME` is 1. Without any the training begins from the start.",
    ),
    variable(
        "CHECKPOINT_INTERVAL",
        seconds(1, 24 * HOUR_SECONDS),
        Default("10m"),
        TRAIN_ONLY,
        "How often the checkpoints are saved.",
    ),
    variable(
        "MAX_RUNTIME",
        seconds(1, 30 * 24 * HOUR_SECONDS),
        Default("12h"),
        TRAIN_AND_RUNNER,
        "The training, or `RUN_PIPELINE`, is ended after this time. Any other runner goes after it as soon as it has no step.",
    ),
    variable(
        "STEP_MAX_TIME",
        seconds(60, 12 * HOUR_SECONDS),
        Optional,
        TRAIN_ONLY,
        "The step's `max-time`, before which the run ends itself in good order. Default: what `bitbucket-pipelines.yml` says of the step with this pipe.",
    ),
    variable(
        "MAX_RESTARTS",
        Count(0, 100),
        Default("10"),
        TRAIN_AND_RUNNER,
        "How often in a row the training is started again when its machine is lost, without a newer checkpoint in between; `0` is never. For `RUN_PIPELINE`: how often in all.",
    ),
    variable(
        "ORPHAN_GRACE",
        seconds(2, 24 * HOUR_SECONDS),
        Default("10m"),
        TRAIN_AND_RUNNER,
        "A machine that has not heard from the pipe for this time ends itself; one that is a runner already follows its own limits then. Never longer than `MAX_RUNTIME`.",
    ),
];
