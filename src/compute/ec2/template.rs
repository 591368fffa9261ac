//! The launch template of a run in one region: what every machine of it is made of, wherever it is found.

use super::client::Cloud;
use super::failure::{Class, Failure, call};
use super::plan::RegionPlan;
use super::pools::Mode;
use super::tags::Tags;
use crate::compute::RunId;
use crate::config::aws::Aws;
use crate::error::Result;
use aws_sdk_ec2::types::{
    Filter, LaunchTemplate, LaunchTemplateBlockDeviceMappingRequest, LaunchTemplateEbsBlockDeviceRequest,
    LaunchTemplateHttpTokensState, LaunchTemplateIamInstanceProfileSpecificationRequest,
    LaunchTemplateInstanceMetadataEndpointState, LaunchTemplateInstanceMetadataOptionsRequest,
    LaunchTemplateInstanceNetworkInterfaceSpecificationRequest, RequestLaunchTemplateData, ResourceType,
    ShutdownBehavior, VolumeType,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A container on the machine is one hop further from the metadata.
const METADATA_HOPS: i32 = 2;

/// The name of the template for one way to pay.
pub(super) fn name(run: &RunId, mode: Mode) -> String {
    let way = match mode {
        Mode::Spot => "spot",
        Mode::OnDemand => "on-demand",
    };
    format!("{}-{way}", super::group::name(run))
}

/// Makes the template, in the place of one that an earlier try of the step left: that one holds its keys.
pub(super) async fn template(
    cloud: &Cloud,
    region: &str,
    name: &str,
    data: RequestLaunchTemplateData,
    tags: &Tags,
) -> Result<String> {
    let mut made = create(cloud, region, name, &data, tags).await;
    // Also what a call made whose answer was lost: it cannot be told from one of an earlier try.
    if made.as_ref().is_err_and(|failure| failure.is(&["InvalidLaunchTemplateName.AlreadyExistsException"])) {
        remove_named(cloud, region, name).await?;
        made = create(cloud, region, name, &data, tags).await;
    }
    Ok(made?)
}

async fn create(
    cloud: &Cloud,
    region: &str,
    name: &str,
    data: &RequestLaunchTemplateData,
    tags: &Tags,
) -> Result<String, Failure> {
    let client = cloud.ec2(region);
    let token = super::fleet::token();
    call("ec2:CreateLaunchTemplate", &format!("cannot make a launch template in {region}"), async || {
        let request = client.create_launch_template().launch_template_name(name).client_token(&token);
        let request = request.launch_template_data(data.clone());
        let made = request.tag_specifications(tags.on(ResourceType::LaunchTemplate)).send().await?;
        let id = made.launch_template.and_then(|template| template.launch_template_id);
        id.ok_or_else(|| Failure::incomplete("launch template"))
    })
    .await
}

async fn remove_named(cloud: &Cloud, region: &str, name: &str) -> Result<(), Failure> {
    let client = cloud.ec2(region);
    let what = format!("cannot remove the launch template {name} in {region}");
    let removed = call("ec2:DeleteLaunchTemplate", &what, async || {
        client.delete_launch_template().launch_template_name(name).send().await?;
        Ok(())
    });
    unless_gone(removed.await)
}

/// Removes a template. One that is gone already is no error.
pub(super) async fn remove(cloud: &Cloud, region: &str, id: &str) -> Result<(), Failure> {
    let client = cloud.ec2(region);
    let what = format!("cannot remove the launch template {id} in {region}");
    let removed = call("ec2:DeleteLaunchTemplate", &what, async || {
        client.delete_launch_template().launch_template_id(id).send().await?;
        Ok(())
    });
    unless_gone(removed.await)
}

fn unless_gone(removed: Result<(), Failure>) -> Result<(), Failure> {
    removed.or_else(|failure| if failure.class() == Class::Gone { Ok(()) } else { Err(failure) })
}

/// The templates with a tag.
pub(super) async fn tagged_with(
    cloud: &Cloud,
    region: &str,
    tag: Filter,
) -> Result<Vec<LaunchTemplate>, Failure> {
    let client = cloud.ec2(region);
    let what = format!("cannot look for launch templates in {region}");
    call("ec2:DescribeLaunchTemplates", &what, async || {
        let request = client.describe_launch_templates().filters(tag.clone());
        Ok(request.into_paginator().items().send().try_collect().await?)
    })
    .await
}

/// What a machine is made of, but for its type, zone and price, which the fleet chooses.
pub(super) fn data(
    aws: &Aws,
    plan: &RegionPlan,
    mode: Mode,
    group: &str,
    user_data: &str,
    tags: &Tags,
) -> RequestLaunchTemplateData {
    // The fleet's own call tags the instance and its volumes, but not these. A launch on demand has no request, and is
    // refused where tags for one are given.
    let tagged = match mode {
        Mode::Spot => vec![ResourceType::NetworkInterface, ResourceType::SpotInstancesRequest],
        Mode::OnDemand => vec![ResourceType::NetworkInterface],
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
        .block_device_mappings(root(aws, plan))
        .network_interfaces(interface)
        .metadata_options(metadata)
        // A machine that powers itself off is gone for good.
        .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
        .user_data(STANDARD.encode(user_data))
        .set_iam_instance_profile(aws.instance_profile.as_deref().map(profile))
        .set_tag_specifications(Some(tagged.into_iter().map(|kind| tags.by_template(kind)).collect()))
        .build()
}

fn root(aws: &Aws, plan: &RegionPlan) -> LaunchTemplateBlockDeviceMappingRequest {
    let size = aws.disk_size.unwrap_or(0).max(plan.image.least_disk);
    let size = i32::try_from(size).unwrap_or(i32::MAX);
    let disk = LaunchTemplateEbsBlockDeviceRequest::builder()
        .volume_size(size)
        .volume_type(VolumeType::from(aws.disk_type.as_str()))
        .encrypted(true)
        .delete_on_termination(true);
    let root = LaunchTemplateBlockDeviceMappingRequest::builder().device_name(&plan.image.root_device);
    root.ebs(disk.build()).build()
}

fn profile(profile: &str) -> LaunchTemplateIamInstanceProfileSpecificationRequest {
    let request = LaunchTemplateIamInstanceProfileSpecificationRequest::builder();
    if profile.starts_with("arn:") { request.arn(profile) } else { request.name(profile) }.build()
}
