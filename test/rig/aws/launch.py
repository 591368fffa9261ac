"""Launching: every instance boots a machine, and every way of launching honours all that it was given."""

import base64
import copy

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instances import Instance, InstanceBackend
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.elastic_block_store import EBSBackend
from moto.ec2.models.subnets import Subnet
from moto.ec2.responses.instances import InstanceResponse
from moto.ec2.responses.general import General
from moto.ec2.utils import convert_tag_spec
import moto.ec2.models.elastic_network_interfaces as interfaces

from aws.spot import make_request
from machines import LOCK

_MACHINES = None
_SKIPS_SHUTDOWN = False  # of the call that is being carried out
_terminate_all = InstanceResponse.terminate_instances


def patch(machines):
    global _MACHINES
    _MACHINES = machines
    interfaces.random_public_ip = machines.free_address
    Subnet.get_available_subnet_ip = _private_address
    Instance.terminate = _terminate
    Instance.instance_status = property(lambda self: _status(self, "instance"))
    Instance.system_status = property(lambda self: _status(self, "system"))
    InstanceResponse.run_instances = _run_instances
    InstanceResponse.terminate_instances = _terminate_instances
    General.get_console_output = _console_output
    InstanceBackend.all_reservations = _known_reservations
    InstanceBackend.get_multi_instances_by_id = _known_instances


def _private_address(subnet, instance):
    """One that no other machine of the lab has, in whatever region it is: they share one network."""
    address = str(subnet.cidr[10 + _MACHINES.count % max(1, subnet.cidr.num_addresses - 16)])
    subnet._subnet_ips[address] = instance
    return address


_all_reservations = InstanceBackend.all_reservations
_get_multi_instances_by_id = InstanceBackend.get_multi_instances_by_id


def _is_known(instance):
    """EC2's parts agree with each other only in the end: a new instance may be unknown to a call for a while."""
    machine = _MACHINES.by_id.get(instance.id)
    return machine is None or machine.age() >= _MACHINES.unknown_seconds


def _known_reservations(backend, filters=None):
    reservations = _all_reservations(backend, filters)
    for reservation in reservations:
        reservation.instances = [instance for instance in reservation.instances if _is_known(instance)]
    return [reservation for reservation in reservations if reservation.instances]


def _known_instances(backend, instance_ids, filters=None):
    for instance in _get_multi_instances_by_id(backend, instance_ids, filters):
        if not _is_known(instance):
            refuse("InvalidInstanceID.NotFound", f"The instance ID '{instance.id}' does not exist")
    return _get_multi_instances_by_id(backend, instance_ids, filters)


def _terminate(instance):
    previous = copy.copy(instance._state)
    machine = _MACHINES.by_id.get(instance.id)
    if machine:
        machine.end("Client.UserInitiatedShutdown", "User initiated shutdown", shutdown=not _SKIPS_SHUTDOWN)
    return previous


def _terminate_instances(response):
    global _SKIPS_SHUTDOWN
    _SKIPS_SHUTDOWN = str(response._get_param("SkipOsShutdown")).lower() == "true"
    try:
        return _terminate_all(response)
    finally:
        _SKIPS_SHUTDOWN = False


def _status(instance, kind):
    if instance.state_code != 16:
        return {"Status": "not-applicable"}
    status, detail = _MACHINES.get(instance.id).status(kind)
    return {"Status": status, "Details": [{"Name": "reachability", "Status": detail}]}


def _console_output(response):
    """Without `Latest` what EC2 has posted: after a start or an end, not what is printed now. Xen has no `Latest`."""
    instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
    machine, latest = _MACHINES.get(instance.id), str(response._get_param("Latest")).lower() == "true"
    if latest and instance.hypervisor == "xen":
        refuse("UnsupportedOperation", "This instance type does not support retrieving the latest console logs. Supported "
               "types are: Nitro-based instances.")
    text = machine.console()[-65536:].decode(errors="replace") if latest or machine.gone.is_set() else ""
    return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(),
                         "Output": Base64EncodedString.from_raw_string(text)})


def _run_instances(response):
    data = {key: response._get_param(key) for key in _FIELDS}
    data = {key: value for key, value in data.items() if value not in (None, [], {})}
    if template := data.pop("LaunchTemplate", None):
        data = merge(response.ec2_backend._get_template_from_args(template).data, data)
    response.error_on_dryrun()
    if int(response._get_param("MinCount") or 1) != 1 or int(response._get_param("MaxCount") or 1) != 1:
        raise EC2ClientError("Unsupported", "the rig launches one instance at a time")
    return ActionResult(launch(response.ec2_backend, data, token=response._get_param("ClientToken")))


_FIELDS = ["ImageId", "InstanceType", "KeyName", "UserData", "SecurityGroupIds", "SecurityGroups", "SubnetId",
           "NetworkInterfaces", "BlockDeviceMappings", "MetadataOptions", "InstanceInitiatedShutdownBehavior",
           "IamInstanceProfile", "TagSpecifications", "InstanceMarketOptions", "Placement", "LaunchTemplate",
           "PrivateIpAddress"]


def merge(template, override):
    """The template with these fields instead of its own; tags of both."""
    tags = template.get("TagSpecifications", []) + override.get("TagSpecifications", [])
    return {**template, **override, "TagSpecifications": tags}


def refuse(code, message):
    raise EC2ClientError(code, message)


def check(backend, data):
    """Refuse, as EC2 does, what cannot be launched. Returns (image, type data, subnet)."""
    image = backend.amis.get(data.get("ImageId"))
    if image is None:
        refuse("InvalidAMIID.NotFound", f"The image id '[{data.get('ImageId')}]' does not exist")
    kind = INSTANCE_TYPES.get(data.get("InstanceType"))
    if kind is None:
        refuse("InvalidParameterValue", f"Invalid value '{data.get('InstanceType')}' for InstanceType.")
    if image.architecture not in kind["ProcessorInfo"]["SupportedArchitectures"]:
        refuse("InvalidParameterValue", f"The architecture '{'/'.join(kind['ProcessorInfo']['SupportedArchitectures'])}'"
               f" of the specified instance type does not match the architecture '{image.architecture}' of the "
               "specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.")
    if len(_raw_user_data(data)) > 16384:
        refuse("InvalidParameterValue", "User data is limited to 16384 bytes")
    subnet = _subnet(backend, data)
    if subnet is None:
        refuse("MissingInput", "No subnets found for the default VPC. Please specify a subnet.")
    _check_volumes(image, data)
    return image, kind, subnet


def _raw_user_data(data):
    return base64.b64decode(str(data.get("UserData") or ""))


def _subnet(backend, data):
    interface = next(iter(data.get("NetworkInterfaces", [])), {})
    identifier = data.get("SubnetId") or interface.get("SubnetId")
    if identifier:
        return backend.get_subnet(identifier)
    defaults = backend.get_default_subnets()
    zone = data.get("Placement", {}).get("AvailabilityZone") or backend.region_name + "a"
    return defaults.get(zone) or next(iter(defaults.values()), None)


def _check_volumes(image, data):
    for mapping in data.get("BlockDeviceMappings", []):
        size = mapping.get("Ebs", {}).get("VolumeSize")
        smallest = image.block_device_mappings[0]["Ebs"]["VolumeSize"]
        if mapping["DeviceName"] == image.root_device_name and size and int(size) < smallest:
            refuse("InvalidBlockDeviceMapping", f"Volume of size {size}GB is smaller than snapshot "
                   f"'{image.ebs_snapshot.id}', expect size >= {smallest}GB")


def launch(backend, data, token=None, spot=None, fleet=None):
    """One instance from launch data (the fields of RunInstances). Returns moto's reservation."""
    image, kind, subnet = check(backend, data)
    market = data.get("InstanceMarketOptions") or {}
    spot = market.get("MarketType") == "spot" if spot is None else spot
    tags = convert_tag_spec(data.get("TagSpecifications", []))
    interfaces_asked = copy.deepcopy(data.get("NetworkInterfaces", []))
    groups = data.get("SecurityGroupIds") or [
        group for interface in interfaces_asked for group in interface.get("Groups", [])]
    public = next((i["AssociatePublicIpAddress"] for i in interfaces_asked if "AssociatePublicIpAddress" in i), None)
    user_data = data.get("UserData")
    reservation = InstanceBackend.run_instances(
        backend, data["ImageId"], 1,
        user_data if user_data is None or isinstance(user_data, Base64EncodedString) else Base64EncodedString(user_data),
        data.get("SecurityGroups") or ([] if groups else [_default_group(backend, subnet)]),
        instance_type=data["InstanceType"], is_instance_type_default=False, region_name=backend.region_name,
        subnet_id=subnet.id, key_name=data.get("KeyName"), security_group_ids=list(groups),
        associate_public_ip=None if public is None else str(public).lower() == "true",
        private_ip=data.get("PrivateIpAddress"), tags=tags, client_token=token,
        instance_initiated_shutdown_behavior=data.get("InstanceInitiatedShutdownBehavior"),
        metadata_options=data.get("MetadataOptions", {}), lifecycle="spot" if spot else None,
        block_device_mappings=_volumes(image, data),
    )
    reservation.groups = reservation.instances[0].security_groups
    instance = reservation.instances[0]
    for interface in instance.nics.values():
        interface.delete_on_termination = True
        interface.add_tags(tags.get("network-interface", {}))
    _finish_volumes(backend, instance, image, data)
    instance.hypervisor = kind.get("Hypervisor", "nitro")
    instance.fleet_id = fleet
    if fleet:
        instance.add_tags({"aws:ec2:fleet-id": fleet})
    if profile := data.get("IamInstanceProfile"):
        backend.associate_iam_instance_profile(instance.id, iam_instance_profile_name=profile.get("Name"),
                                               iam_instance_profile_arn=profile.get("Arn"))
    if spot:
        make_request(backend, instance, subnet, market.get("SpotOptions", {}), tags.get("spot-instances-request", {}))
    _MACHINES.launch(instance)
    return reservation


def _default_group(backend, subnet):
    return backend.get_default_security_group(subnet.vpc_id).id


def _volumes(image, data):
    """The volumes asked for, and the image's root volume unless that is among them."""
    root = {"DeviceName": image.root_device_name, "Ebs": copy.deepcopy(image.block_device_mappings[0]["Ebs"])}
    result = {root["DeviceName"]: root}
    for mapping in data.get("BlockDeviceMappings", []):
        own = result.get(mapping["DeviceName"], {"Ebs": {"DeleteOnTermination": False, "VolumeType": "gp2"}})
        ebs = {**own["Ebs"], **mapping.get("Ebs", {})}
        ebs.update(VolumeSize=int(ebs.get("VolumeSize") or 8), Encrypted=_true(ebs.get("Encrypted")),
                   DeleteOnTermination=_true(ebs.get("DeleteOnTermination")))
        result[mapping["DeviceName"]] = {"DeviceName": mapping["DeviceName"], "Ebs": ebs}
    return list(result.values())


def _true(value):
    return str(value).lower() == "true"


def _finish_volumes(backend, instance, image, data):
    wanted = {mapping["DeviceName"]: mapping["Ebs"] for mapping in _volumes(image, data)}
    for device, block in instance.get_block_device_mapping:
        volume = backend.get_volume(block.volume_id)
        for name, field in (("Iops", "iops"), ("Throughput", "throughput")):
            if wanted.get(device, {}).get(name):
                setattr(volume, field, int(wanted[device][name]))
