//! The image of a machine: names, SSM parameters and ids of images, and their login users.

use super::super::client::AwsClients;
use super::super::failure::{AwsError, call};
use super::Image;
use super::problem::PlanProblem;
use aws_sdk_ec2::types as sdk;
use std::collections::BTreeMap;
use trainspot_compute::aws::AwsSettings;

/// An image that `IMAGE` takes by name.
struct NamedImage {
    name: &'static str,
    user: &'static str,
    /// The public parameter that holds the newest AMI's id, with `{deb}` or `{arch}` for the architecture.
    parameter: &'static str,
}

/// The images by name, with the publishers' parameters for the newest one. The part about the volume differs
/// between Ubuntu's releases.
const IMAGE_TABLE: [NamedImage; 4] = [
    NamedImage {
        name: "ubuntu-24.04",
        user: "ubuntu",
        parameter: "/aws/service/canonical/ubuntu/server/24.04/stable/current/{deb}/hvm/ebs-gp3/ami-id",
    },
    NamedImage {
        name: "ubuntu-22.04",
        user: "ubuntu",
        parameter: "/aws/service/canonical/ubuntu/server/22.04/stable/current/{deb}/hvm/ebs-gp2/ami-id",
    },
    NamedImage {
        name: "al2023",
        user: "ec2-user",
        parameter: "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{arch}",
    },
    NamedImage {
        name: "deep-learning",
        user: "ubuntu",
        parameter: "/aws/service/deeplearning/ami/{arch}/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
    },
];

const DEFAULT_IMAGE: &str = "ubuntu-24.04";
const GPU_IMAGE: &str = "deep-learning";

/// The login users, each by a word of the image's name or description. The last one is for an image without
/// any of these words.
const LOGIN_USERS: [(&str, &str); 8] = [
    ("ubuntu", "ubuntu"),
    ("amzn", "ec2-user"),
    ("al2023", "ec2-user"),
    ("amazon linux", "ec2-user"),
    ("debian", "admin"),
    ("rocky", "rocky"),
    ("fedora", "fedora"),
    ("", "ec2-user"),
];

/// EC2's name for the architecture of this program, which is also the machine's agent.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

fn parameter(pattern: &str, architecture: &str) -> String {
    let debian = if architecture == "x86_64" { "amd64" } else { architecture };
    pattern.replace("{deb}", debian).replace("{arch}", architecture)
}

/// The ids of every image that may be wanted: whether a type has a GPU is not known yet.
///
/// One call for all of them; none for an AMI's id.
pub(super) async fn ids(
    clients: &AwsClients,
    aws: &AwsSettings,
    region: &str,
) -> Result<BTreeMap<String, String>, Vec<PlanProblem>> {
    let names: Vec<&str> =
        aws.image.as_deref().map_or_else(|| vec![DEFAULT_IMAGE, GPU_IMAGE], |name| vec![name]);
    if let [id] = names[..]
        && id.starts_with("ami-")
    {
        return Ok(BTreeMap::from([(id.to_owned(), id.to_owned())]));
    }
    let paths: BTreeMap<String, String> = names.iter().map(|name| (path(name), (*name).to_owned())).collect();
    let held = parameters(clients, region, paths.keys()).await?;
    Ok(held.into_iter().filter_map(|(path, id)| Some((paths.get(&path)?.clone(), id))).collect())
}

/// The parameter that holds an image's id.
fn path(name: &str) -> String {
    let named = IMAGE_TABLE.iter().find(|named| named.name == name);
    named.map_or_else(|| name.to_owned(), |named| parameter(named.parameter, architecture()))
}

async fn parameters(
    clients: &AwsClients,
    region: &str,
    paths: impl Iterator<Item = &String>,
) -> Result<Vec<(String, String)>, AwsError> {
    let (ssm, paths) = (clients.ssm(region), paths.cloned().collect::<Vec<_>>());
    let what = format!("cannot look up the image in {region}");
    let answer = call("ssm:GetParameters", &what, || async {
        Ok(ssm.get_parameters().set_names(Some(paths.clone())).send().await?)
    })
    .await?;
    let held = answer.parameters.unwrap_or_default().into_iter();
    Ok(held.filter_map(|parameter| Some((parameter.name?, parameter.value?))).collect())
}

/// The image to start from, as EC2 describes it.
pub(super) async fn describe(
    ec2: &aws_sdk_ec2::Client,
    aws: &AwsSettings,
    ids: Result<BTreeMap<String, String>, Vec<PlanProblem>>,
    gpu: bool,
) -> Result<Image, Vec<PlanProblem>> {
    let wanted = aws.image.as_deref().unwrap_or(if gpu { GPU_IMAGE } else { DEFAULT_IMAGE });
    let ids = ids?;
    let id = ids.get(wanted).ok_or_else(|| vec![unknown(wanted)])?;
    let found = call("ec2:DescribeImages", &format!("cannot look at the image {id}"), || async {
        Ok(ec2.describe_images().image_ids(id).send().await?)
    })
    .await;
    let images = match found {
        Ok(answer) => answer.images.unwrap_or_default(),
        // By its own code, as the id may be the user's.
        Err(failure) if failure.code().is_some_and(|code| code.starts_with("InvalidAMIID")) => Vec::new(),
        Err(failure) => return Err(failure.into()),
    };
    let image = images.into_iter().next().ok_or_else(|| vec![not_there(wanted, id)])?;
    check(image, wanted).map_err(|problem| vec![problem])
}

fn unknown(wanted: &str) -> PlanProblem {
    let names: Vec<&str> = IMAGE_TABLE.iter().map(|named| named.name).collect();
    if wanted.starts_with('/') {
        return PlanProblem::with(
            "IMAGE",
            format!("is '{wanted}', but there is no such SSM parameter in the region"),
        );
    }
    PlanProblem::with(
        "IMAGE",
        format!(
            "is '{wanted}', for which the region has no image: take {}, an AMI's id, or an SSM parameter's path",
            names.join(", ")
        ),
    )
}

fn not_there(wanted: &str, id: &str) -> PlanProblem {
    let name = if wanted == id { String::new() } else { format!(" (from '{wanted}')") };
    PlanProblem::with(
        "IMAGE",
        format!("is {id}{name}, but the region has no such AMI, or this account may not use it"),
    )
}

fn check(image: sdk::Image, wanted: &str) -> Result<Image, PlanProblem> {
    let id = image.image_id.clone().unwrap_or_default();
    let wrong = |what: String| Err(PlanProblem::with("IMAGE", format!("is {id}, {what}")));
    let (own, its) = (architecture(), image.architecture.as_ref().map_or("", |it| it.as_str()));
    if its != own {
        return wrong(format!(
            "whose architecture is {its}; this pipe runs on {own}, and so must the machine"
        ));
    }
    if image.platform.is_some() {
        return wrong("which is Windows; the training needs Linux".to_owned());
    }
    if image.root_device_type != Some(sdk::DeviceType::Ebs) {
        return wrong("whose root device is no EBS volume".to_owned());
    }
    if let Some(state) = image.state.as_ref().filter(|state| **state != sdk::ImageState::Available) {
        return wrong(format!("which is {state}, not available"));
    }
    let root_device = image.root_device_name.clone().unwrap_or_else(|| "/dev/sda1".to_owned());
    Ok(Image {
        user: user(wanted, &image),
        least_disk: least_disk(&image, &root_device),
        further_devices: further_devices(&image, &root_device),
        name: image.name.unwrap_or_else(|| wanted.to_owned()),
        root_device,
        id,
    })
}

/// The login user: known for a named image, told by the words of any other image, or guessed.
fn user(wanted: &str, image: &sdk::Image) -> String {
    if let Some(named) = IMAGE_TABLE.iter().find(|named| named.name == wanted) {
        return named.user.to_owned();
    }
    let words = [image.name.as_deref(), image.description.as_deref(), image.image_location.as_deref()];
    let words =
        format!("{wanted} {}", words.into_iter().flatten().collect::<Vec<_>>().join(" ")).to_lowercase();
    let (word, user) =
        LOGIN_USERS.into_iter().find(|(word, _)| words.contains(word)).unwrap_or(("", "ec2-user"));
    if word.is_empty() {
        tracing::warn!(
            "the image does not tell who logs in; {user} is tried, as on Amazon Linux and most others"
        );
    }
    user.to_owned()
}

/// The image's other EBS volumes, which may be meant to outlive the machine.
fn further_devices(image: &sdk::Image, root_device: &str) -> Vec<String> {
    let volumes = image.block_device_mappings().iter().filter(|device| device.ebs().is_some());
    volumes
        .filter_map(|device| device.device_name())
        .filter(|name| *name != root_device)
        .map(str::to_owned)
        .collect()
}

/// The size of the root volume's snapshot, in GiB: a volume cannot be smaller.
fn least_disk(image: &sdk::Image, root_device: &str) -> u32 {
    let root = image.block_device_mappings().iter().find(|device| device.device_name() == Some(root_device));
    let size = root.and_then(|device| device.ebs()?.volume_size());
    size.and_then(|size| u32::try_from(size).ok()).unwrap_or(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str) -> sdk::builders::ImageBuilder {
        sdk::Image::builder()
            .image_id("ami-1")
            .name(name)
            .architecture(architecture().into())
            .root_device_type(sdk::DeviceType::Ebs)
            .root_device_name("/dev/xvda")
            .state(sdk::ImageState::Available)
    }

    #[test]
    fn the_parameters_are_those_of_the_publishers() {
        let all: Vec<String> = IMAGE_TABLE.iter().map(|named| parameter(named.parameter, "x86_64")).collect();
        assert_eq!(
            all,
            [
                "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",
                "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id",
                "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64",
                "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id",
            ]
        );
        assert!(parameter(IMAGE_TABLE[0].parameter, "arm64").contains("/arm64/"));
        assert!(parameter(IMAGE_TABLE[2].parameter, "arm64").ends_with("-arm64"));
    }

    #[test]
    fn the_login_user_follows_the_images_words() {
        for (name, user) in [
            ("ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20260101", "ubuntu"),
            ("Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 20260101", "ubuntu"),
            ("Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023) 20260101", "ec2-user"),
            ("al2023-ami-2023.6.20260101.0-kernel-6.1-x86_64", "ec2-user"),
            ("amzn2-ami-hvm-2.0.20260101-x86_64-gp2", "ec2-user"),
            ("debian-13-amd64-20260101-1", "admin"),
            ("our-own-image", "ec2-user"),
        ] {
            assert_eq!(check(image(name).build(), "ami-1").unwrap().user, user, "{name}");
        }
    }

    #[test]
    fn the_disk_is_at_least_the_root_snapshot() {
        let device = |name: &str, size| {
            let ebs = sdk::EbsBlockDevice::builder().volume_size(size).build();
            sdk::BlockDeviceMapping::builder().device_name(name).ebs(ebs).build()
        };
        let image = image("x").block_device_mappings(device("/dev/sdb", 500));
        let image = image.block_device_mappings(device("/dev/xvda", 75)).build();
        let image = check(image, "ami-1").unwrap();
        assert_eq!((image.least_disk, image.further_devices), (75, vec!["/dev/sdb".to_owned()]));
    }

    #[test]
    fn an_image_that_cannot_serve_is_refused() {
        let other = if architecture() == "x86_64" { "arm64" } else { "x86_64" };
        for (image, word) in [
            (image("x").architecture(other.into()), "architecture"),
            (image("x").platform(sdk::PlatformValues::Windows), "Windows"),
            (image("x").root_device_type(sdk::DeviceType::InstanceStore), "EBS"),
            (image("x").state(sdk::ImageState::Disabled), "disabled"),
        ] {
            let problem = check(image.build(), "ami-1").unwrap_err();
            assert!(problem.text().starts_with("IMAGE is ami-1, "), "{problem:?}");
            assert!(problem.text().contains(word), "{problem:?}");
        }
    }
}
