"""Spot requests: one for each spot instance, whose status tells the interruption before the instance's state does."""

from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.spot_requests import LaunchSpecification, SpotInstanceRequest, SpotRequestBackend
from moto.ec2.responses.spot_instances import SpotInstances
from moto.ec2.utils import filter_dict_attribute_mapping, generic_filter, random_spot_request_id

from aws import prices


def patch():
    SpotRequestBackend.cancel_spot_instance_requests = _cancel
    SpotRequestBackend.describe_spot_instance_requests = _describe
    SpotInstances.request_spot_instances = _not_here
    filter_dict_attribute_mapping["instance-lifecycle"] = "lifecycle"


def _not_here(_):
    raise EC2ClientError("UnsupportedOperation", "the rig has RunInstances and CreateFleet only")


def make_request(backend, instance, subnet, options, tags):
    request = Request(backend, instance, subnet, options, tags)
    backend.spot_instance_requests[request.id] = request
    instance.spot_instance_request_id = request.id


class Request(SpotInstanceRequest):
    """A one-time request that is fulfilled from the start."""

    def __init__(self, backend, instance, subnet, options, tags):
        self.ec2_backend = backend
        self.id = random_spot_request_id()
        self.instance = instance
        self.type = options.get("SpotInstanceType", "one-time")
        self.price = options.get("MaxPrice") or f"{prices.on_demand(instance.instance_type, backend.region_name):.6f}"
        self.instance_interruption_behaviour = options.get("InstanceInterruptionBehavior", "terminate")
        self.valid_from = self.valid_until = self.launch_group = self.availability_zone_group = None
        self.spot_fleet_id = self.launch_spec = None
        self.launch_specification = LaunchSpecification(
            None, None, instance.image_id, instance.key_name, instance.instance_type, subnet.availability_zone,
            False, subnet.id)
        self.launch_specification.groups = list(instance.security_groups)
        self._created = utcnow()
        self.launched_availability_zone = subnet.availability_zone
        self._set("active", "fulfilled", "Your Spot request is fulfilled.")
        self.add_tags(tags)

    def _set(self, state, code, message):
        self.state, self._status_code, self.status_message, self._updated = state, code, message, utcnow()

    @property
    def create_time(self):
        return self._created

    @property
    def status(self):
        return {"Code": self._status_code, "Message": self.status_message, "UpdateTime": self._updated}

    def get_filter_value(self, filter_name, method_name=None):
        own = {"status-code": self._status_code, "instance-id": self.instance.id, "type": self.type,
               "launched-availability-zone": self.launched_availability_zone}
        return own.get(filter_name) or super().get_filter_value(filter_name, method_name)

    def interrupted(self):
        """The notice: the status is final at once, while the instance runs on for two minutes."""
        self._set("closed", "instance-terminated-no-capacity",
                  "Your instance was terminated because there is no longer enough Spot capacity available.")

    def instance_ended(self, reason):
        if self.state == "cancelled":
            self._set("cancelled", "instance-terminated-by-user", "Spot Instance terminated due to user-initiated termination.")
        elif self._status_code != "instance-terminated-no-capacity":
            by_user = reason.startswith("Client.")
            code = "instance-terminated-by-user" if by_user else "instance-terminated-by-service"
            self._set("closed", code, "Spot Instance terminated.")

    def cancel(self):
        if self.state == "active":
            self._set("cancelled", "request-canceled-and-instance-running",
                      "Your Spot request is canceled, but your instance is still running.")


def _known(backend, identifiers):
    for identifier in identifiers:
        if identifier not in backend.spot_instance_requests:
            raise EC2ClientError("InvalidSpotInstanceRequestID.NotFound",
                                 f"The spot instance request ID '{identifier}' does not exist")
    return [backend.spot_instance_requests[identifier] for identifier in identifiers]


def _cancel(backend, request_ids):
    requests = _known(backend, request_ids)
    for request in requests:
        request.cancel()
    return requests


def _describe(backend, filters=None, spot_instance_ids=None):
    requests = _known(backend, spot_instance_ids) if spot_instance_ids else list(backend.spot_instance_requests.values())
    return generic_filter(filters, requests)
