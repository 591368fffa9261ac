//! What names and addresses at AWS look like. A slip is told before anything is asked of AWS.

use super::alternatives::alternatives;
use ipnet::IpNet;
use std::net::IpAddr;
use trainspot_bitbucket::label_fault;
use trainspot_compute::RunId;
use trainspot_compute::aws::IMAGE_NAMES;
use trainspot_store::StoreAddress;

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueShape {
    /// A region: `eu-west-1`.
    Region,
    /// An instance type: `m5.2xlarge`.
    InstanceType,
    /// A name that we know, an AMI's id, or an SSM parameter's path.
    Image,
    /// A subnet's id.
    Subnet,
    /// A security group's id.
    SecurityGroup,
    /// An IAM role's ARN.
    Role,
    /// An instance profile's name or ARN.
    InstanceProfile,
    /// `KEY=VALUE`.
    Tag,
    /// An address, or a range of them.
    Cidr,
    /// A runner's label.
    Label,
    /// A SHA-256, in hexadecimal.
    Sha256,
    /// A server's name or address, with or without a port.
    Host,
    /// The address of a store of detached runs.
    Store,
    /// The id of a run.
    Run,
    /// An `EventBridge` bus's name or ARN.
    EventBus,
}

impl ValueShape {
    /// The shape in a word or two, for tables.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::InstanceType => "instance type",
            Self::Image => "image",
            Self::Subnet | Self::SecurityGroup | Self::Run => "id",
            Self::Role => "ARN",
            Self::InstanceProfile | Self::EventBus => "name or ARN",
            Self::Tag => "KEY=VALUE",
            Self::Cidr => "address range",
            Self::Label => "label",
            Self::Sha256 => "SHA-256",
            Self::Host => "host",
            Self::Store => "address",
        }
    }

    /// A list of them in a few words.
    #[must_use]
    pub fn list_label(self) -> &'static str {
        match self {
            Self::Region => "list of regions",
            Self::InstanceType => "list of instance types",
            Self::Subnet | Self::SecurityGroup => "list of ids",
            Self::Tag => "list of KEY=VALUE",
            Self::Cidr => "list of address ranges",
            Self::Label => "list of labels",
            Self::Host => "list of hosts",
            _ => "list of names",
        }
    }

    /// The value as AWS writes it.
    ///
    /// The error ends the sentence `NAME 'value' …`.
    pub(super) fn check(self, text: &str) -> Result<String, String> {
        match self {
            Self::Region => region(text),
            Self::InstanceType => instance_type(text),
            Self::Image => image(text),
            Self::Subnet => id(text, "subnet-", "a subnet's id", "subnet-0123456789abcdef0"),
            Self::SecurityGroup => id(text, "sg-", "a security group's id", "sg-0123456789abcdef0"),
            Self::Role => role(text),
            Self::InstanceProfile => instance_profile(text),
            Self::Tag => tag(text),
            Self::Cidr => return cidr(text),
            Self::Label => label_fault(text).map_or(Ok(()), Err),
            Self::Sha256 => return sha256(text),
            Self::Host => host(text),
            Self::Store => store(text),
            Self::Run => run(text),
            Self::EventBus => event_bus(text),
        }?;
        Ok(text.to_owned())
    }
}

fn region(text: &str) -> Result<(), String> {
    let mut parts: Vec<&str> = text.split('-').collect();
    let number = parts.pop().unwrap_or_default();
    let words = parts.len() >= 2
        && parts.iter().all(|part| part.len() >= 2 && part.bytes().all(|letter| letter.is_ascii_lowercase()));
    let digits = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|it| it.is_ascii_digit());
    if words && digits(number) {
        return Ok(());
    }
    let without_zone = text.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    if words && without_zone.len() + 1 == text.len() && digits(&number[..number.len() - 1]) {
        return Err(format!("is a zone; give its region, {without_zone}"));
    }
    Err("is not a region; write it like eu-west-1".into())
}

/// A family with a generation in it, and a size: `m7i-flex.large`, `u-6tb1.112xlarge`, `c7g.metal-48xl`.
fn instance_type(text: &str) -> Result<(), String> {
    const SIZE_NAMES: [&str; 7] = ["nano", "micro", "small", "medium", "large", "xlarge", "metal"];
    let counted = |size: &str, unit: &str| {
        size.strip_suffix(unit)
            .is_some_and(|count| !count.is_empty() && count.bytes().all(|it| it.is_ascii_digit()))
    };
    let (family, size) = text.split_once('.').unwrap_or_default();
    let family = family.starts_with(|first: char| first.is_ascii_lowercase())
        && family.contains(|letter: char| letter.is_ascii_digit())
        && family
            .bytes()
            .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-');
    let size = SIZE_NAMES.contains(&size)
        || counted(size, "xlarge")
        || size.strip_prefix("metal-").is_some_and(|size| counted(size, "xl"));
    if family && size { Ok(()) } else { Err("is not an instance type; write it like m5.2xlarge".into()) }
}

fn image(text: &str) -> Result<(), String> {
    if text.starts_with("ami-") {
        return id(text, "ami-", "an AMI's id", "ami-0123456789abcdef0");
    }
    let path = |letter: u8| letter.is_ascii_alphanumeric() || b"/._-".contains(&letter);
    if IMAGE_NAMES.contains(&text) || (text.starts_with('/') && text.len() > 1 && text.bytes().all(path)) {
        return Ok(());
    }
    let names = alternatives(&IMAGE_NAMES);
    Err(format!("is not known; it can be {names}, an AMI's id, or the path of an SSM parameter"))
}

fn id(text: &str, prefix: &str, what: &str, example: &str) -> Result<(), String> {
    let hex = |letter: u8| letter.is_ascii_digit() || (b'a'..=b'f').contains(&letter);
    let fits = |rest: &str| (8..=17).contains(&rest.len()) && rest.bytes().all(hex);
    if text.strip_prefix(prefix).is_some_and(fits) {
        return Ok(());
    }
    Err(format!("is not {what}; write it like {example}"))
}

fn role(text: &str) -> Result<(), String> {
    if is_of_iam(text, "role/") {
        return Ok(());
    }
    Err("is not a role's ARN; write it like arn:aws:iam::123456789012:role/trainspot".into())
}

fn instance_profile(text: &str) -> Result<(), String> {
    let part_of_name = |letter: u8| letter.is_ascii_alphanumeric() || b"_+=,.@-".contains(&letter);
    if is_of_iam(text, "role/") {
        return Err("is a role's ARN; give that of the instance profile that holds the role".into());
    }
    if is_of_iam(text, "instance-profile/") || (text.len() <= 128 && text.bytes().all(part_of_name)) {
        return Ok(());
    }
    Err("is neither the name nor the ARN of an instance profile".into())
}

/// Whether a text is the ARN of a thing in IAM whose name follows `kind`, such as `role/`.
fn is_of_iam(text: &str, kind: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, "iam", "", account, name] = parts[..] else { return false };
    partition.starts_with("aws")
        && is_account(account)
        && name.strip_prefix(kind).is_some_and(|name| !name.is_empty())
        && !name.contains(char::is_whitespace)
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|letter| letter.is_ascii_digit())
}

/// [AWS's limits](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Using_Tags.html#tag-restrictions).
fn tag(text: &str) -> Result<(), String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("is not a tag; write KEY=VALUE".into());
    };
    let lower = key.to_ascii_lowercase();
    if key.trim().is_empty() {
        return Err("has no key; write KEY=VALUE".into());
    }
    if key.chars().count() > 128 || value.chars().count() > 256 {
        return Err("is too long; a key can have 128 characters, a value 256".into());
    }
    if lower.starts_with("aws:") {
        return Err("has a key that AWS keeps for itself; choose one without aws:".into());
    }
    if lower.starts_with("trainspot:") || lower == "name" {
        return Err("has a key that trainspot sets itself; choose another one".into());
    }
    Ok(())
}

/// Checks a host as an address shows it: `dvc.example.com`, `10.0.0.7:9000`, `[2001:db8::1]:443`.
fn host(text: &str) -> Result<(), String> {
    if text.contains("://") || text.contains('/') {
        return Err("is an address; give its host alone, or host:port".into());
    }
    match url::Url::parse(&format!("https://{text}")) {
        Ok(url) if !text.contains(['@', '?', '#']) && url.host_str().is_some() => Ok(()),
        _ => Err("is not a host; write it like dvc.example.com or 10.0.0.7:9000".into()),
    }
}

fn store(text: &str) -> Result<(), String> {
    StoreAddress::parse(text)
        .map(|_| ())
        .map_err(|_| "is no store's address; write s3://BUCKET/PREFIX, or a folder's absolute path".into())
}

fn run(text: &str) -> Result<(), String> {
    let wrong =
        "is not a run's id; write its 16 hexadecimal digits, as the pipe that began the run told them";
    RunId::parse(text).map(|_| ()).ok_or_else(|| wrong.into())
}

fn event_bus(text: &str) -> Result<(), String> {
    let is_name = |name: &str| {
        let fits = |letter: u8| letter.is_ascii_alphanumeric() || b"/._-".contains(&letter);
        (1..=256).contains(&name.len()) && name.bytes().all(fits)
    };
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let is_arn = match parts[..] {
        ["arn", partition, "events", region, account, name] => {
            partition.starts_with("aws")
                && self::region(region).is_ok()
                && is_account(account)
                && name.strip_prefix("event-bus/").is_some_and(is_name)
        }
        _ => false,
    };
    if is_arn || is_name(text) {
        return Ok(());
    }
    Err("is neither the name nor the ARN of an EventBridge bus".into())
}

fn cidr(text: &str) -> Result<String, String> {
    let range = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let range =
        range.ok_or("is not an address or a range of them; write it like 203.0.113.7 or 203.0.113.0/24")?;
    // AWS keeps the range's first address whatever was given, and would not find it again by another.
    Ok(range.trunc().to_string())
}

fn sha256(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|letter| letter.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("is not a SHA-256; write its 64 hexadecimal digits".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_names_are_taken_as_they_are() {
        use ValueShape::{
            EventBus, Host, Image, InstanceProfile, InstanceType, Region, Role, Run, SecurityGroup, Store,
            Subnet, Tag,
        };
        for (shape, texts) in [
            (
                Region,
                &["eu-west-1", "us-gov-east-1", "ap-southeast-7", "eusc-de-east-1", "cn-northwest-1"]
                    as &[_],
            ),
            (
                InstanceType,
                &[
                    "m5.2xlarge",
                    "t3.nano",
                    "m7i-flex.large",
                    "u-6tb1.112xlarge",
                    "mac2-m2pro.metal",
                    "c7g.metal-48xl",
                    "p5en.48xlarge",
                    "g4ad.xlarge",
                ],
            ),
            (
                Image,
                &["ubuntu-24.04", "al2023", "ami-12c6146b", "ami-0123456789abcdef0", "/aws/service/x/ami-id"],
            ),
            (Subnet, &["subnet-12345678", "subnet-0123456789abcdef0"]),
            (SecurityGroup, &["sg-12345678"]),
            (Role, &["arn:aws:iam::123456789012:role/ci/trainspot", "arn:aws-cn:iam::123456789012:role/x"]),
            (InstanceProfile, &["trainspot@ci", "arn:aws:iam::123456789012:instance-profile/x"]),
            (Host, &["dvc.example.com", "minio", "10.0.0.7:9000", "[::1]:80"]),
            (Store, &["s3://my-bucket", "s3://my-bucket/a/b", "/srv/runs"]),
            (Run, &["0123456789abcdef"]),
            (EventBus, &["default", "ci/wake", "arn:aws:events:eu-west-1:123456789012:event-bus/wake"]),
            (Tag, &["team=ml", "cost-center=", "project:model=a=b", "namespace=x", "größe=groß"]),
        ] {
            for text in texts {
                assert_eq!(shape.check(text).as_deref(), Ok(*text), "{shape:?}");
            }
        }
    }

    #[test]
    fn ranges_are_written_as_aws_does() {
        for (given, kept) in [
            ("203.0.113.7", "203.0.113.7/32"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("2001:db8::1/32", "2001:db8::/32"),
        ] {
            assert_eq!(ValueShape::Cidr.check(given).as_deref(), Ok(kept));
        }
    }
}
