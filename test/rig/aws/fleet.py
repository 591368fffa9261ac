"""CreateFleet of type `instant`: pools, their capacity and price, errors inside of a 200."""

import hashlib

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.fleets import Fleet, FleetsBackend
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.ec2.responses.fleets import Fleets
from moto.ec2.utils import convert_tag_spec, random_fleet_id

from aws import prices, requirements
from aws.launch import launch, merge, refuse

_FAULTS = None
CAPACITY = {}  # (type or "*", zone or "*") → score from 0 (none) to 10, set by a test
ICE = "InsufficientInstanceCapacity"
MOST_REQUIREMENTS = 4  # sets of requirements in one request


def patch(faults):
    global _FAULTS
    _FAULTS = faults
    Fleets.create_fleet = _create_fleet
    FleetsBackend.describe_fleets = _describe_fleets


class InstantFleet(Fleet):
    """What moto needs to describe one."""

    def __init__(self, backend, request):
        self.ec2_backend, self.id = backend, random_fleet_id()
        self.spot_options, self.on_demand_options = request.spot, request.on_demand
        self.target_capacity_specification = request.target
        self.launch_template_configs = request.configs
        self.excess_capacity_termination_policy = None
        self.replace_unhealthy_instances = self.terminate_instances_with_expiration = False
        self.fleet_type, self.state = "instant", "active"
        self.valid_from = self.valid_until = None
        self.target_capacity = int(request.target["TotalTargetCapacity"])
        self.fulfilled_capacity = 0.0
        self.launch_specs, self.spot_requests, self.on_demand_instances = [], [], []
        self.launched = []
        self.add_tags(request.tags.get("fleet", {}))
        self.tags = self.get_tags()

    valid_from_as_string = valid_until_as_string = None

    @property
    def instances(self):
        return None

    def terminate_instances(self):
        living = [instance.id for instance in self.launched if instance.state != "terminated"]
        if living:
            self.ec2_backend.terminate_instances(living)

    def lives(self):
        return any(instance.state != "terminated" for instance in self.launched)


def _describe_fleets(backend, fleet_ids):
    """Instant fleets are seen only by those who know their id."""
    if fleet_ids:
        return [fleet for fleet in backend.fleets.values() if fleet.id in fleet_ids]
    return [fleet for fleet in backend.fleets.values() if fleet.fleet_type != "instant"]


class Request:
    """The parameters of the call."""

    def __init__(self, response):
        self.spot = response._get_param("SpotOptions", {})
        self.on_demand = response._get_param("OnDemandOptions", {})
        self.target = response._get_param("TargetCapacitySpecification", {})
        self.configs = response._get_param("LaunchTemplateConfigs", [])
        self.tag_specifications = response._get_param("TagSpecifications", [])
        self.tags = convert_tag_spec(self.tag_specifications)
        self.kind = response._get_param("Type") or "maintain"

    def check(self):
        if self.kind != "instant":
            refuse("UnsupportedOperation", "the rig has fleets of type instant only")
        if not self.configs or "TotalTargetCapacity" not in self.target:
            refuse("MissingParameter", "The request must contain LaunchTemplateConfigs and TotalTargetCapacity")
        for tags in self.tag_specifications:
            if tags["ResourceType"] not in ("fleet", "instance", "volume", "network-interface", "spot-instances-request"):
                refuse("InvalidParameterValue", f"'{tags['ResourceType']}' is not a valid taggable resource type")
        self.check_requirements()

    def check_requirements(self):
        overrides = [override for config in self.configs for override in config.get("Overrides") or []]
        if sum("InstanceRequirements" in override for override in overrides) > MOST_REQUIREMENTS:
            refuse("InvalidParameterValue", "Your request contains more than the maximum allowed number of "
                   f"InstanceRequirements ({MOST_REQUIREMENTS})")

    def purchases(self):
        """What to get, and how many of each: [("spot", 1)]."""
        total = int(self.target["TotalTargetCapacity"])
        wanted = {"on-demand": int(self.target.get("OnDemandTargetCapacity") or 0),
                  "spot": int(self.target.get("SpotTargetCapacity") or 0)}
        wanted[self.target.get("DefaultTargetCapacityType") or "on-demand"] += total - sum(wanted.values())
        return [(purchase, count) for purchase, count in wanted.items() if count > 0]


class Pool:
    """A type in a zone, with the override that named it."""

    def __init__(self, template, override, kind, subnet):
        self.template, self.override, self.kind, self.subnet = template, override, kind, subnet
        self.zone = subnet.availability_zone

    def capacity(self):
        """From 0 to 10; what a test set for it, else by its name from 3 to 10."""
        for key in ((self.kind, self.zone), (self.kind, "*"), ("*", self.zone), ("*", "*")):
            if key in CAPACITY:
                return CAPACITY[key]
        return 3 + hashlib.sha256(f"{self.kind}/{self.zone}".encode()).digest()[0] % 8

    def described(self):
        specification = {"LaunchTemplateId": self.template.template.id, "Version": str(self.template.number)}
        override = {name: value for name, value in self.override.items() if name != "InstanceRequirements"}
        override.update(InstanceType=self.kind, SubnetId=self.subnet.id, AvailabilityZone=self.zone)
        return {"LaunchTemplateSpecification": specification, "Overrides": override}


def _create_fleet(response):
    request = Request(response)
    request.check()
    backend = response.ec2_backend
    templates = [_template(backend, config["LaunchTemplateSpecification"]) for config in request.configs]
    response.error_on_dryrun()
    fleet = InstantFleet(backend, request)
    instances, errors = [], []
    for purchase, count in request.purchases():
        pools = _pools(backend, request, templates, purchase)
        for _ in range(count):
            launched = _launch_one(backend, request, fleet, pools, purchase, errors)
            if launched is None:
                break
            instances.append(launched)
    backend.fleets[fleet.id] = fleet
    fleet.fulfilled_capacity = float(len(instances))
    return ActionResult({"FleetId": fleet.id, "Instances": instances, "Errors": errors})


def _template(backend, specification):
    if "Version" not in specification:
        refuse("MissingParameter", "The request must contain the parameter LaunchTemplateSpecification.Version")
    return backend._get_template_from_args(specification)


def _pools(backend, request, templates, purchase):
    """Every pool the request allows, in the order in which its strategy tries them."""
    pools, region = [], backend.region_name
    for config, template in zip(request.configs, templates):
        for override in config.get("Overrides") or [{}]:
            for kind in _kinds(region, template, override, purchase):
                pools += [Pool(template, override, kind, subnet) for subnet in _subnets(backend, template, override)]
    places = [(pool.kind, pool.zone) for pool in pools]
    if len(set(places)) < len(places):
        refuse("InvalidFleetConfig", "The fleet configuration contains duplicate instance pools")
    strategy = (request.spot if purchase == "spot" else request.on_demand).get("AllocationStrategy", "lowest-price")

    def price(pool):
        return prices.spot(pool.kind, pool.zone) if purchase == "spot" else prices.on_demand(pool.kind, region)

    order = {
        # Of the pools with most capacity the cheapest; near capacities count as equal.
        "price-capacity-optimized": lambda pool: (-(pool.capacity() // 3), price(pool)),
        "capacity-optimized": lambda pool: (-pool.capacity(), price(pool)),
        "capacity-optimized-prioritized": lambda pool: (float(pool.override.get("Priority", 0)), -pool.capacity()),
        "prioritized": lambda pool: (float(pool.override.get("Priority", 0)), price(pool)),
        "lowest-price": price,
        "diversified": lambda pool: hashlib.sha256(f"{pool.kind}{pool.zone}".encode()).digest(),
    }
    if strategy not in order:
        refuse("InvalidParameterValue", f"The allocation strategy {strategy} is not valid")
    return sorted(pools, key=order[strategy])


def _kinds(region, template, override, purchase):
    asked = override.get("InstanceRequirements")
    if asked is None:
        return [override.get("InstanceType") or template.data.get("InstanceType")]
    image = override.get("ImageId") or template.data.get("ImageId")
    from moto.ec2.models import ec2_backends
    known = ec2_backends[template.template.ec2_backend.account_id][region].amis.get(image)
    architectures = [known.architecture] if known else []
    return requirements.resolve(region, asked, architectures, spot=purchase == "spot")


def _subnets(backend, template, override):
    interfaces = template.data.get("NetworkInterfaces", [])
    named = override.get("SubnetId") or next((i["SubnetId"] for i in interfaces if i.get("SubnetId")), None)
    if named:
        return [backend.get_subnet(identifier.strip()) for identifier in named.split(",")]
    zone = override.get("AvailabilityZone") or override.get("Placement", {}).get("AvailabilityZone")
    defaults = backend.get_default_subnets()
    return [subnet for name, subnet in sorted(defaults.items()) if zone in (None, name)]


def _launch_one(backend, request, fleet, pools, purchase, errors):
    """Try the pools in turn. What each refusal was goes to `errors`, once for each pool."""
    for pool in pools:
        try:
            _refuse_unless_available(backend, pool, request, purchase)
            data = _launch_data(pool, request)
            tagged = {tags.get("ResourceType") for tags in data.get("TagSpecifications", [])}
            if purchase != "spot" and "spot-instances-request" in tagged:
                refuse("InvalidParameterValue", "You cannot specify tags for Spot instances requests if there are no Spot "
                       "instances requests being created by the request.")
            reservation = launch(backend, data, spot=purchase == "spot", fleet=fleet.id)
        except EC2ClientError as error:
            code, message = error.code, error.message
            found = {"LaunchTemplateAndOverrides": pool.described(), "Lifecycle": purchase,
                     "ErrorCode": code, "ErrorMessage": message}
            if found not in errors:
                errors.append(found)
            continue
        instance = reservation.instances[0]
        fleet.launched.append(instance)
        return {"LaunchTemplateAndOverrides": pool.described(), "Lifecycle": purchase,
                "InstanceIds": [instance.id], "InstanceType": pool.kind}
    return None


def _launch_data(pool, request):
    override = {"InstanceType": pool.kind, "SubnetId": pool.subnet.id}
    if "ImageId" in pool.override:
        override["ImageId"] = pool.override["ImageId"]
    # The template's tags are for each resource; the fleet's own request can tag the instance and the fleet.
    override["TagSpecifications"] = [tags for tags in request.tag_specifications if tags["ResourceType"] != "fleet"]
    data = merge(pool.template.data, override)
    data.setdefault("InstanceMarketOptions", {"SpotOptions": {"MaxPrice": request.spot.get("MaxTotalPrice")}})
    template_tags = {"aws:ec2launchtemplate:id": pool.template.template.id,
                     "aws:ec2launchtemplate:version": str(pool.template.number)}
    data["TagSpecifications"] = data["TagSpecifications"] + [
        {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in template_tags.items()]}]
    return data


def _refuse_unless_available(backend, pool, request, purchase):
    region = backend.region_name
    if fault := _FAULTS.capacity(region, pool.kind, pool.zone, purchase):
        refuse(fault.code, fault.message)
    if pool.kind not in INSTANCE_TYPES:
        refuse("InvalidParameterValue", f"Invalid value '{pool.kind}' for InstanceType.")
    offered = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    if not any(offer["InstanceType"] == pool.kind and offer["Location"] == pool.zone for offer in offered):
        refuse("Unsupported", f"Your requested instance type ({pool.kind}) is not supported in your requested "
               f"Availability Zone ({pool.zone}).")
    if purchase == "spot" and "spot" not in INSTANCE_TYPES[pool.kind]["SupportedUsageClasses"]:
        refuse("Unsupported", f"The instance type {pool.kind} cannot be had as a Spot Instance.")
    limit = pool.override.get("MaxPrice")
    if purchase == "spot" and limit and float(limit) < prices.spot(pool.kind, pool.zone):
        refuse("SpotMaxPriceTooLow", f"Your Spot request price of {limit} is lower than the minimum required Spot "
               f"request fulfillment price of {prices.spot(pool.kind, pool.zone)}.")
    if pool.capacity() == 0:
        refuse(ICE, f"We currently do not have sufficient {pool.kind} capacity in the Availability Zone you requested "
               f"({pool.zone}).")
