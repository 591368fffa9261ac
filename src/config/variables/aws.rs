//! What to rent from AWS, and how.

use super::Requirement::{Default, Optional, Required};
use super::ValueKind::{Choice, Count, Each, Gib, Money, One, Script, Switch, Url};
use super::{
    ACCOUNT_ACTIONS, AWS_ACTIONS, HOUR_SECONDS, Provider, Requirement, TRAIN_AND_RUNNER, ValueKind,
    ValueShape, VariableSpec, inherited, seconds, variable,
};

const fn aws(
    name: &'static str,
    kind: ValueKind,
    requirement: Requirement,
    help: &'static str,
) -> VariableSpec {
    VariableSpec { providers: &[Provider::Aws], ..variable(name, kind, requirement, TRAIN_AND_RUNNER, help) }
}

const fn swept(variable: VariableSpec) -> VariableSpec {
    VariableSpec { actions: AWS_ACTIONS, ..variable }
}

const fn of_account(variable: VariableSpec) -> VariableSpec {
    VariableSpec { actions: ACCOUNT_ACTIONS, ..variable }
}

const fn key(name: &'static str, help: &'static str) -> VariableSpec {
    VariableSpec { secret: true, ..inherited(of_account(aws(name, ValueKind::Text, Optional, help))) }
}

pub(super) const AWS_VARIABLES: &[VariableSpec] = &[
    inherited(of_account(aws(
        "AWS_OIDC_ROLE_ARN",
        One(ValueShape::Role),
        Optional,
        "The IAM role to take, by OpenID Connect. The step needs `oidc: true`.",
    ))),
    key(
        "AWS_ACCESS_KEY_ID",
        "Instead of a role: an access key, with `AWS_SECRET_ACCESS_KEY`. A role wins where both are given. With neither, credentials are looked for where the AWS SDK looks.",
    ),
    key("AWS_SECRET_ACCESS_KEY", "The access key's secret."),
    key("AWS_SESSION_TOKEN", "The session of an access key that is temporary."),
    inherited(of_account(aws(
        "AWS_DEFAULT_REGION",
        One(ValueShape::Region),
        Required,
        "The region to rent in. `AWS_REGION` holds where this is missing.",
    ))),
    of_account(aws(
        "FALLBACK_REGIONS",
        Each(ValueShape::Region),
        Optional,
        "Regions to look in, in this order, when that one has no capacity.",
    )),
    aws(
        "INSTANCE_TYPE",
        Each(ValueShape::InstanceType),
        Optional,
        "The types of machine that will do. The more, the easier one is had, and kept. Give these, or `CPUS`, `MEMORY`, `GPU`, `GPU_MEMORY`.",
    ),
    aws(
        "CPUS",
        Count(1, 2048),
        Optional,
        "Instead of types: any type with at least so many virtual CPUs will do.",
    ),
    aws("MEMORY", Gib(65536), Optional, "Instead of types: at least so much memory, in GiB."),
    aws("GPU", Count(0, 64), Optional, "Instead of types: at least so many GPUs."),
    aws(
        "GPU_MEMORY",
        Gib(65536),
        Optional,
        "Instead of types: at least so much memory of all GPUs together, in GiB.",
    ),
    aws(
        "PURCHASE",
        Choice(&["spot", "spot-then-on-demand", "on-demand"]),
        Default("spot"),
        "How to pay: `spot` is cheap and can be taken away; `spot-then-on-demand` is on demand where no spot was to be had for `SPOT_WAIT`, and with `CHECKPOINTS` goes back to spot when there is some.",
    ),
    aws(
        "MAX_PRICE",
        Money,
        Optional,
        "The most that an hour of spot may cost, in dollars. Default: the on-demand price.",
    ),
    aws(
        "MAX_COST",
        Money,
        Optional,
        "The run is ended when its machines have cost this much, in dollars; a last checkpoint is taken first. For a runner it holds with `RUN_PIPELINE` only, while the pipe is there.",
    ),
    aws(
        "CAPACITY_WAIT",
        ValueKind::Duration(std::time::Duration::ZERO, std::time::Duration::from_secs(24 * HOUR_SECONDS)),
        Default("6h"),
        "How long to look for capacity, each time that a machine is needed; `0s` asks everywhere once. The step's build minutes are counted meanwhile. With `DETACH` the default counts as `2m`: the run is then due, and is woken again.",
    ),
    aws(
        "SPOT_WAIT",
        ValueKind::Duration(std::time::Duration::ZERO, std::time::Duration::from_secs(24 * HOUR_SECONDS)),
        Default("30m"),
        "With `PURCHASE: spot-then-on-demand`: how long to look for spot alone, before on demand will do.",
    ),
    aws(
        "IMAGE",
        One(ValueShape::Image),
        Optional,
        "What the machine starts from: `ubuntu-24.04`, `ubuntu-22.04`, `al2023`, `deep-learning` (Ubuntu with NVIDIA's drivers), an AMI's id, or the path of an SSM parameter that holds one. Default: `deep-learning` where the type has a GPU, otherwise `ubuntu-24.04`.",
    ),
    aws(
        "DISK_SIZE",
        Gib(65536),
        Default("50"),
        "The size of the disk, in GiB; that of the image where it is larger.",
    ),
    aws("DISK_TYPE", Choice(&["gp3", "gp2"]), Default("gp3"), "The type of the disk, which is encrypted."),
    aws(
        "INSTANCE_PROFILE",
        One(ValueShape::InstanceProfile),
        Optional,
        "The name or ARN of an instance profile, for a training, or steps of a runner, that call AWS themselves. With `DETACH` it is needed: the machine reaches `STORE` by it.",
    ),
    aws(
        "SUBNET",
        Each(ValueShape::Subnet),
        Optional,
        "The subnets to choose from. Default: those of the region's default VPC.",
    ),
    aws(
        "SECURITY_GROUP",
        One(ValueShape::SecurityGroup),
        Optional,
        "A security group that lets the pipe in on port 22. Default: one is made for the run, and removed after it.",
    ),
    aws(
        "TAGS",
        Each(ValueShape::Tag),
        Optional,
        "Tags as `KEY=VALUE` on everything that is made, besides trainspot's own.",
    ),
    aws(
        "STARTUP_SCRIPT",
        Script,
        Optional,
        "Commands that run on the machine as root before the training or the runner, such as `apt-get install`.",
    ),
    aws(
        "SSH_CIDR",
        Each(ValueShape::Cidr),
        Optional,
        "The addresses from which port 22 can be reached. Default: the pipe's own.",
    ),
    aws(
        "SSH_ADDRESS",
        Choice(&["auto", "public", "private"]),
        Default("auto"),
        "The machine's address to use: `auto` is the private one if the pipe runs in the same VPC, else the public one; with `private` the machine gets no public one.",
    ),
    swept(aws(
        "PUBLIC_IP_URL",
        Url,
        Default("https://checkip.amazonaws.com"),
        "Answers with the pipe's own public address.",
    )),
    aws(
        "BOOT_TIMEOUT",
        seconds(5, HOUR_SECONDS),
        Default("10m"),
        "A machine that is not ready after this time is given up, and another one is tried. A runner has as long again to come online.",
    ),
    swept(aws(
        "DRY_RUN",
        Switch,
        Default("false"),
        "Shows what would be rented, with prices, and tries each thing that a run needs; rents nothing. With `ACTION: sweep` it shows what would be removed.",
    )),
];
