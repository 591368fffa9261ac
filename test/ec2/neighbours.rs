//! Another repository's things in the same account, even under the name of the same run: they are left alone.

use super::moto::{Account, with_account};
use super::rent::{ec2, launch_request, told};
use aws_sdk_ec2::types::{
    InstanceType, RequestLaunchTemplateData, Reservation, ResourceType, Tag, TagSpecification,
};
use trainspot_compute::aws::AwsSettings;
use trainspot_compute::{Compute as _, RunId};
use trainspot_ec2::AwsClients;

const REGION: &str = "eu-west-1";

fn tags(run: &RunId) -> Vec<Tag> {
    let tag = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    vec![
        tag("trainspot:run", run.as_str()),
        tag("trainspot:repository", "acme/meadow"),
        tag("trainspot:user", "ubuntu"),
        tag("trainspot:host-key", "ssh-ed25519 AAAA"),
        tag("trainspot:runner", "trainspot-meadow-0123456789abcdef"),
    ]
}

fn on(kind: ResourceType, run: &RunId) -> TagSpecification {
    TagSpecification::builder().resource_type(kind).set_tags(Some(tags(run))).build()
}

/// A machine, a template and a group of another repository, whose tags name the same run. The machine's id.
async fn neighbours(account: &Account, run: &RunId, names: (&str, &str)) -> String {
    let ec2 = account.open(REGION).await;
    let images = ec2.describe_images().owners("amazon").send().await.unwrap();
    let image = images.images()[0].image_id().unwrap().to_owned();
    let machine = ec2.run_instances().image_id(&image).instance_type(InstanceType::M5Large);
    let machine = machine.min_count(1).max_count(1).tag_specifications(on(ResourceType::Instance, run));
    let machine = machine.send().await.unwrap().instances()[0].instance_id().unwrap().to_owned();
    let (template, group) = names;
    let data = RequestLaunchTemplateData::builder().image_id(image);
    let made = ec2.create_launch_template().launch_template_name(template).launch_template_data(data.build());
    made.tag_specifications(on(ResourceType::LaunchTemplate, run)).send().await.unwrap();
    let made = ec2.create_security_group().group_name(group).description("of another repository");
    let vpc = ec2.describe_vpcs().send().await.unwrap().vpcs()[0].vpc_id().unwrap().to_owned();
    made.vpc_id(vpc).tag_specifications(on(ResourceType::SecurityGroup, run)).send().await.unwrap();
    machine
}

/// How many machines that run, templates and groups of the other repository there are.
async fn left(account: &Account) -> [usize; 3] {
    let ec2 = account.ec2(REGION).await;
    let machines = ec2.describe_instances().send().await.unwrap();
    let theirs = |tags: &[Tag]| tags.iter().any(|tag| tag.value() == Some("acme/meadow"));
    let machines = machines.reservations().iter().flat_map(Reservation::instances).filter(|machine| {
        theirs(machine.tags()) && machine.state().unwrap().name().unwrap().as_str() == "running"
    });
    let templates = ec2.describe_launch_templates().send().await.unwrap();
    let groups = ec2.describe_security_groups().send().await.unwrap();
    [
        machines.count(),
        templates.launch_templates().iter().filter(|template| theirs(template.tags())).count(),
        groups.security_groups().iter().filter(|group| theirs(group.tags())).count(),
    ]
}

fn settings(account: &Account) -> AwsSettings {
    account.aws(&[REGION], &["m5.large"])
}

#[test]
fn neither_a_run_nor_a_sweep_touches_another_repositorys_things() {
    with_account("100000000051", async |account: Account| {
        let request = launch_request("neighbours");
        let machine = neighbours(&account, &request.run, ("theirs", "theirs")).await;
        let aws = settings(&account);
        let ours = ec2(aws.clone()).await;
        // It is not taken over, though its tags name the run.
        assert_eq!(told(ours.find(&request.run).await), []);
        let cloud = AwsClients::new(&aws.account, "acme/forest").await.unwrap();
        assert_eq!(told(cloud.leftovers().await), []);
        told(cloud.delete_run_resources(&request.run).await);
        told(ours.delete_run_resources(&request.run).await);
        assert_eq!(left(&account).await, [1, 1, 1]);
        let refused = cloud.query(REGION, &machine, "http://127.0.0.1:9").await.err().unwrap().render();
        assert!(refused.contains("is not this repository's, but that of acme/meadow"), "{refused}");
        // Its own repository does find it, and removes it.
        let theirs = AwsClients::new(&aws.account, "acme/meadow").await.unwrap();
        assert_eq!(told(theirs.leftovers().await).len(), 3);
        told(theirs.delete_run_resources(&request.run).await);
        assert_eq!(left(&account).await, [0, 0, 0]);
    });
}

#[test]
fn a_template_of_another_repository_under_the_runs_name_is_left_there() {
    with_account("100000000052", async |account: Account| {
        let request = launch_request("squatted");
        let group = format!("trainspot-{}", request.run);
        neighbours(&account, &request.run, (&format!("{group}-spot"), "theirs")).await;
        let refused = ec2(settings(&account)).await.launch(&request).await.err().unwrap().render();
        assert!(
            refused.contains("a launch template in eu-west-1 has the name of this run's, but not its tags"),
            "{refused}"
        );
        assert_eq!(left(&account).await, [1, 1, 1]);
    });
}

#[test]
fn a_group_of_another_repository_under_the_runs_name_is_left_there() {
    with_account("100000000053", async |account: Account| {
        let request = launch_request("squatted");
        neighbours(&account, &request.run, ("theirs", &format!("trainspot-{}", request.run))).await;
        let refused = ec2(settings(&account)).await.launch(&request).await.err().unwrap().render();
        assert!(refused.contains("has the name of this run's, but not its tags"), "{refused}");
        assert_eq!(left(&account).await, [1, 1, 1]);
    });
}
