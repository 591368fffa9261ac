//! The launch template of a run in one region, from which each of the run's machines there is made.

use super::client::AwsClients;
use super::failure::{AwsError, ErrorClass, call};
use super::plan::RegionPlan;
use super::pools::CapacityType;
use super::tags::{REPOSITORY_TAG, Tags, filter, tag_filter};
use super::user_data::{Lease, user_data};
use super::{Ec2, group};
use aws_sdk_ec2::types::{
    Filter, LaunchTemplate, LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateIamInstanceProfileSpecificationRequest,
    LaunchTemplateInstanceMetadataEndpointState, LaunchTemplateInstanceMetadataOptionsRequest,
    LaunchTemplateInstanceNetworkInterfaceSpecificationRequest, RequestLaunchTemplateData, ResourceType,
    ShutdownBehavior, VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use trainspot_base::error::{Error, Kind};
use trainspot_compute::aws::AwsSettings;
use trainspot_compute::{LaunchRequest, RunId};

/// How long a run's transfers may take in all: the machine must not end while its outputs are being fetched.
/// The supervisor's grace ends it much earlier when nobody fetches them.
const TRANSFER_ALLOWANCE: Duration = Duration::from_hours(1);

/// A container on the machine is one hop further from the metadata.
const METADATA_HOPS: i32 = 2;

/// The name of the run's template for one capacity type.
pub(super) fn name(run: &RunId, capacity: CapacityType) -> String {
    let way = match capacity {
        CapacityType::Spot => "spot",
        CapacityType::OnDemand => "on-demand",
    };
    format!("{}-{way}", group::run_resource_name(run))
}

impl Ec2 {
    /// The id of the run's template in a region for one capacity type. Made once by a process, with the group
    /// that it names, as it holds the process's keys.
    pub(super) async fn template(
        &self,
        plan: &RegionPlan,
        capacity: CapacityType,
        request: &LaunchRequest,
    ) -> Result<String, AwsError> {
        let mut templates = self.templates.lock().await;
        let key = (plan.region.clone(), capacity);
        if let Some((_, template)) = templates.get(&key).filter(|(run, _)| *run == request.run) {
            return Ok(template.clone());
        }
        let (clients, tags) = (&self.clients, self.tags(&request.run));
        let (group, from) = match &plan.network.security_group {
            Some(group) => (group.clone(), &[][..]),
            None => (
                group::ensure_group(clients, plan, &request.run, &tags).await?,
                plan.network.inbound.as_slice(),
            ),
        };
        let ((), id) = tokio::try_join!(
            group::allow_ssh_from(clients, &plan.region, &group, from),
            self.make_template(plan, capacity, request, &group)
        )?;
        templates.insert(key, (request.run.clone(), id.clone()));
        Ok(id)
    }

    /// Makes the run's template, whose machines are in the security group `group`.
    pub(super) async fn make_template(
        &self,
        plan: &RegionPlan,
        capacity: CapacityType,
        request: &LaunchRequest,
        group: &str,
    ) -> Result<String, AwsError> {
        let tags = self.tags(&request.run);
        let lease = Lease {
            boot: self.aws.boot_timeout,
            grace: request.orphan_grace,
            life: request.max_runtime + self.aws.boot_timeout + request.orphan_grace + TRANSFER_ALLOWANCE,
        };
        let text = user_data(&self.host, &self.client, lease)?;
        let data = data(&self.aws, plan, capacity, group, &text, &tags);
        template(&self.clients, &plan.region, &name(&request.run, capacity), data, &tags).await
    }

    /// Forgets a template, so that [`Self::template`] makes it anew.
    pub(super) async fn forget_template(&self, region: &str, capacity: CapacityType) {
        self.templates.lock().await.remove(&(region.to_owned(), capacity));
    }
}

/// Makes the template, and replaces one that an earlier try of the step left, as that one holds other keys.
async fn template(
    clients: &AwsClients,
    region: &str,
    name: &str,
    data: RequestLaunchTemplateData,
    tags: &Tags,
) -> Result<String, AwsError> {
    let mut made = create(clients, region, name, &data, tags).await;
    // This may also be the template of a lost answer, which looks like one of an earlier try.
    if made.as_ref().is_err_and(|failure| failure.is(&["InvalidLaunchTemplateName.AlreadyExistsException"])) {
        remove_namesake(clients, region, name).await?;
        made = create(clients, region, name, &data, tags).await;
    }
    made
}

async fn create(
    clients: &AwsClients,
    region: &str,
    name: &str,
    data: &RequestLaunchTemplateData,
    tags: &Tags,
) -> Result<String, AwsError> {
    let client = clients.ec2(region);
    let client_token = super::fleet::client_token();
    call("ec2:CreateLaunchTemplate", &format!("cannot make a launch template in {region}"), async || {
        let request = client.create_launch_template().launch_template_name(name).client_token(&client_token);
        let request = request.launch_template_data(data.clone());
        let made = request.tag_specifications(tags.on(ResourceType::LaunchTemplate)).send().await?;
        let id = made.launch_template.and_then(|template| template.launch_template_id);
        id.ok_or_else(|| AwsError::incomplete("launch template"))
    })
    .await
}

/// Removes the repository's template of this name, which EC2 may not list yet. A template of this name
/// without the repository's tag is left alone.
async fn remove_namesake(clients: &AwsClients, region: &str, name: &str) -> Result<(), AwsError> {
    let start = Instant::now();
    loop {
        let found = find_by_tag(clients, region, filter("launch-template-name", [name])).await?;
        match found.first().and_then(LaunchTemplate::launch_template_id) {
            Some(id) => return remove(clients, region, id).await,
            None if start.elapsed() < group::UNKNOWN_AFTER_CREATE => sleep(group::POLL_INTERVAL).await,
            None => {
                let what =
                    format!("a launch template in {region} has the name of this run's, but not its tags");
                let hint = format!("remove it: it is called {name}");
                return Err(Error::new(what).kind(Kind::Machine).hint(hint).into());
            }
        }
    }
}

/// Removes a template. A template that does not exist is no error.
pub(super) async fn remove(clients: &AwsClients, region: &str, id: &str) -> Result<(), AwsError> {
    let client = clients.ec2(region);
    let what = format!("cannot remove the launch template {id} in {region}");
    let removed = call("ec2:DeleteLaunchTemplate", &what, async || {
        client.delete_launch_template().launch_template_id(id).send().await?;
        Ok(())
    });
    match removed.await {
        Err(failure) if failure.class() == ErrorClass::NotFound => Ok(()),
        removed => removed,
    }
}

/// The repository's templates with a tag.
pub(super) async fn find_by_tag(
    clients: &AwsClients,
    region: &str,
    tag: Filter,
) -> Result<Vec<LaunchTemplate>, AwsError> {
    let client = clients.ec2(region);
    let what = format!("cannot look for launch templates in {region}");
    call("ec2:DescribeLaunchTemplates", &what, async || {
        let request = client.describe_launch_templates().filters(tag.clone());
        let request = request.filters(tag_filter(REPOSITORY_TAG, clients.repository()));
        Ok(request.into_paginator().items().send().try_collect().await?)
    })
    .await
}

/// The template's data: all that a machine is made of, but for type, zone and price, which the fleet chooses.
fn data(
    aws: &AwsSettings,
    plan: &RegionPlan,
    capacity: CapacityType,
    group: &str,
    user_data: &str,
    tags: &Tags,
) -> RequestLaunchTemplateData {
    // The fleet's own call tags the instance and its volumes, but not these. A launch on demand has no
    // request, and is refused where tags for one are given.
    let tag_filter = match capacity {
        CapacityType::Spot => vec![ResourceType::NetworkInterface, ResourceType::SpotInstancesRequest],
        CapacityType::OnDemand => vec![ResourceType::NetworkInterface],
    };
    let interface = LaunchTemplateInstanceNetworkInterfaceSpecificationRequest::builder()
        .device_index(0)
        .associate_public_ip_address(plan.network.public)
        .groups(group)
        .delete_on_termination(true)
        .build();
    let metadata = LaunchTemplateInstanceMetadataOptionsRequest::builder()
        // An account may have it off by default, and without it there is no user data, and so no guard.
        .http_endpoint(LaunchTemplateInstanceMetadataEndpointState::Enabled)
        .http_tokens(LaunchTemplateHttpTokensState::Required)
        .http_put_response_hop_limit(METADATA_HOPS)
        .build();
    RequestLaunchTemplateData::builder()
        .image_id(&plan.image.id)
        .set_block_device_mappings(Some(disks(aws, plan)))
        .network_interfaces(interface)
        .metadata_options(metadata)
        // A machine that powers itself off is gone for good.
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
        .user_data(STANDARD.encode(user_data))
        .set_iam_instance_profile(aws.instance_profile.as_deref().map(profile))
        .set_tag_specifications(Some(tag_filter.into_iter().map(|kind| tags.by_template(kind)).collect()))
        .build()
}

/// The root volume in the planned size, and the image's further volumes. All are deleted with the machine,
/// whatever the image says.
fn disks(aws: &AwsSettings, plan: &RegionPlan) -> Vec<LaunchTemplateBlockDeviceMappingRequest> {
    let size = aws.disk_size.unwrap_or(0).max(plan.image.least_disk);
    let size = i32::try_from(size).unwrap_or(i32::MAX);
    let disk = || LaunchTemplateEbsBlockDeviceRequest::builder().encrypted(true).delete_on_termination(true);
    let at = |device: &str, disk: LaunchTemplateEbsBlockDeviceRequest| {
        LaunchTemplateBlockDeviceMappingRequest::builder().device_name(device).ebs(disk).build()
    };
    let root = disk().volume_size(size).volume_type(VolumeType::from(aws.disk_type.as_str())).build();
    let further = plan.image.further_devices.iter().map(|device| at(device, disk().build()));
    std::iter::once(at(&plan.image.root_device, root)).chain(further).collect()
}

fn profile(profile: &str) -> LaunchTemplateIamInstanceProfileSpecificationRequest {
    let request = LaunchTemplateIamInstanceProfileSpecificationRequest::builder();
    if profile.starts_with("arn:") { request.arn(profile) } else { request.name(profile) }.build()
}

#[cfg(test)]
mod tests {
    use super::super::plan::sample;
    use super::*;

    #[test]
    fn every_disk_of_the_image_ends_with_the_machine() {
        let mut plan = sample::region();
        plan.image.least_disk = 75;
        plan.image.further_devices = vec!["/dev/sdb".to_owned()];
        let disks = disks(&sample::aws(), &plan);
        let disk = |number: usize| (disks[number].device_name().unwrap(), disks[number].ebs().unwrap());
        assert_eq!((disk(0).0, disk(0).1.volume_size()), ("/dev/sda1", Some(75)));
        // The size is the snapshot's, which the image names.
        assert_eq!((disk(1).0, disk(1).1.volume_size()), ("/dev/sdb", None));
        for (_, ebs) in [disk(0), disk(1)] {
            assert_eq!((ebs.encrypted(), ebs.delete_on_termination()), (Some(true), Some(true)));
        }
    }
}
