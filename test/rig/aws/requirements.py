"""Instance requirements: from vCPUs, memory and accelerators to the types that have them."""

import fnmatch

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.ec2.responses.instances import InstanceResponse

from aws import prices

# Without a limit given, EC2 leaves out what costs much more than the cheapest fitting type (percent above it).
PRICE_LIMITS = {"SpotMaxPricePercentageOverLowestPrice": 100, "OnDemandMaxPricePercentageOverLowestPrice": 20}


def patch():
    InstanceResponse.get_instance_types_from_instance_requirements = _types_from_requirements


def _types_from_requirements(response):
    response.error_on_dryrun()
    kinds = resolve(response.region, response._get_param("InstanceRequirements", {}),
                    response._get_param("ArchitectureTypes", []))
    size = int(response._get_param("MaxResults") or 1000)
    start = int(response._get_param("NextToken") or 0)
    following = str(start + size) if len(kinds) > start + size else None
    return ActionResult({"InstanceTypes": [{"InstanceType": kind} for kind in kinds[start:start + size]],
                         "NextToken": following})


def resolve(region, asked, architectures=(), spot=None):
    """The types of this region that meet the requirements, cheapest first; `spot`: only those to be had that way."""
    for name in ("VCpuCount", "MemoryMiB"):
        if "Min" not in asked.get(name, {}):
            raise EC2ClientError("MissingParameter", f"The request must contain the parameter {name}.Min")
    if asked.get("AllowedInstanceTypes") and asked.get("ExcludedInstanceTypes"):
        raise EC2ClientError("InvalidParameterCombination",
                             "AllowedInstanceTypes and ExcludedInstanceTypes cannot be specified together.")
    offered = {offering["InstanceType"] for offering in INSTANCE_TYPE_OFFERINGS["region"].get(region, [])}
    kinds = [kind for kind in sorted(offered & set(INSTANCE_TYPES)) if _meets(INSTANCE_TYPES[kind], asked, architectures)]
    if spot is not None:
        usage = "spot" if spot else "on-demand"
        kinds = [kind for kind in kinds if usage in INSTANCE_TYPES[kind]["SupportedUsageClasses"]]
    kinds.sort(key=lambda kind: (prices.on_demand(kind, region), kind))
    return _within_price(kinds, region, asked, spot)


def _within_price(kinds, region, asked, spot):
    if spot is None or not kinds:
        return kinds
    name = "SpotMaxPricePercentageOverLowestPrice" if spot else "OnDemandMaxPricePercentageOverLowestPrice"
    percent = int(asked.get(name, PRICE_LIMITS[name]))
    # The reference is the cheapest type of the current general, compute and memory families, or whatever fits.
    plain = [kind for kind in kinds if kind[0] in "cmr"] or kinds
    limit = prices.on_demand(plain[0], region) * (1 + percent / 100)
    return [kind for kind in kinds if prices.on_demand(kind, region) <= limit + 1e-9]


def _within(limits, value):
    return float(limits.get("Min", 0)) <= value <= float(limits.get("Max", "inf"))


def _meets(data, asked, architectures):
    kind = data["InstanceType"]
    if not _within(asked["VCpuCount"], data["VCpuInfo"]["DefaultVCpus"]):
        return False
    if not _within(asked["MemoryMiB"], data["MemoryInfo"]["SizeInMiB"]):
        return False
    if architectures and not set(architectures) & set(data["ProcessorInfo"]["SupportedArchitectures"]):
        return False
    if "AllowedInstanceTypes" in asked and not any(_like(kind, pattern) for pattern in asked["AllowedInstanceTypes"]):
        return False
    if any(_like(kind, pattern) for pattern in asked.get("ExcludedInstanceTypes", [])):
        return False
    return _habits(data, asked) and _accelerators(data, asked)


def _habits(data, asked):
    """What is left out unless it is asked for: bare metal, burstable and previous generations."""
    if asked.get("BareMetal", "excluded") == "excluded" and data.get("BareMetal"):
        return False
    if asked.get("BurstablePerformance", "excluded") == "excluded" and data.get("BurstablePerformanceSupported"):
        return False
    generations = asked.get("InstanceGenerations")
    if generations and ("current" if data.get("CurrentGeneration") else "previous") not in generations:
        return False
    makers = asked.get("CpuManufacturers")
    return not makers or _maker(data) in makers


def _maker(data):
    name = data["ProcessorInfo"].get("Manufacturer", "").lower()
    return "amd" if "amd" in name else "amazon-web-services" if "aws" in name or "amazon" in name else "intel"


def _accelerators(data, asked):
    gpus = data.get("GpuInfo", {}).get("Gpus", [])
    others = data.get("InferenceAcceleratorInfo", {}).get("Accelerators", []) + data.get(
        "FpgaInfo", {}).get("Fpgas", []) + data.get("NeuronInfo", {}).get("NeuronDevices", [])
    limits = asked.get("AcceleratorCount")
    if limits is None and not any(asked.get(name) for name in (
            "AcceleratorTypes", "AcceleratorNames", "AcceleratorTotalMemoryMiB", "AcceleratorManufacturers")):
        return True  # left out by their price, as a rule
    if str((limits or {}).get("Max")) == "0":
        return not gpus and not others
    if asked.get("AcceleratorTypes") and "gpu" not in asked["AcceleratorTypes"]:
        return bool(others) and _within(limits or {}, sum(int(device.get("Count", 1)) for device in others))
    count = sum(int(gpu["Count"]) for gpu in gpus)
    names = {gpu["Name"].lower() for gpu in gpus}
    makers = {gpu["Manufacturer"].lower() for gpu in gpus}
    return (count > 0 and _within(limits or {}, count)
            and _within(asked.get("AcceleratorTotalMemoryMiB", {}), data["GpuInfo"]["TotalGpuMemoryInMiB"])
            and (not asked.get("AcceleratorNames") or bool(names & set(asked["AcceleratorNames"])))
            and (not asked.get("AcceleratorManufacturers") or bool(makers & set(asked["AcceleratorManufacturers"]))))


def _like(kind, pattern):
    return fnmatch.fnmatchcase(kind, pattern)
