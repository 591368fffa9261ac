"""What is left at the provider: every resource, in every region, that is not there in an empty account."""

from moto.core import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends

from aws.fleet import InstantFleet


def find():
    """[{kind, region, id, state, tags}], empty when nothing is left."""
    left = []
    for region, backend in list(ec2_backends[DEFAULT_ACCOUNT_ID].items()):
        for kind, resource, identifier, state in _resources(backend):
            tags = {tag["key"]: tag["value"] for tag in backend.describe_tags(filters={"resource-id": [identifier]})}
            left.append({"kind": kind, "region": region, "id": identifier, "state": state, "tags": tags})
    return left


def _resources(backend):
    for instance in backend.all_instances():
        if instance.state != "terminated":
            yield "instance", instance, instance.id, instance.state
    for volume in backend.volumes.values():
        yield "volume", volume, volume.id, volume.status
    for template in backend.launch_templates.values():
        yield "launch-template", template, template.id, "available"
    for groups in list(backend.groups.values()):
        for group in list(groups.values()):
            if not group.is_default:
                yield "security-group", group, group.id, "available"
    for request in backend.spot_instance_requests.values():
        if request.state in ("open", "active") or (
                request.state == "cancelled" and request.instance.state != "terminated"):
            yield "spot-instances-request", request, request.id, request.state
    for fleet in backend.fleets.values():
        # An instant fleet is nothing once its instances are gone; nobody deletes it.
        alive = fleet.lives() if isinstance(fleet, InstantFleet) else fleet.state == "active"
        if alive:
            yield "fleet", fleet, fleet.id, fleet.state
    for pair in backend.key_pairs.values():
        yield "key-pair", pair, pair.id, "available"
    for interface in backend.enis.values():
        yield "network-interface", interface, interface.id, interface.status
    for address in backend.addresses:
        yield "address", address, address.allocation_id, "allocated"
    for snapshot in backend.snapshots.values():
        if not snapshot.from_ami:
            yield "snapshot", snapshot, snapshot.id, snapshot.status
