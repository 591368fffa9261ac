"""Prices: plausible, the same in every run, and different for each type and zone."""

import hashlib
import json
from datetime import datetime, timedelta, timezone

from moto.core.responses import ActionResult
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES
from moto.ec2.responses.spot_instances import SpotInstances

VOLUMES = {"gp3": 0.08, "gp2": 0.10, "io1": 0.125, "io2": 0.125, "st1": 0.045, "sc1": 0.015, "standard": 0.05}


def patch():
    SpotInstances.describe_spot_price_history = _history


def _fraction(*words):
    """A number from 0 to 1 that depends on the words alone."""
    return int.from_bytes(hashlib.sha256("/".join(words).encode()).digest()[:4]) / 2**32


def on_demand(kind, region):
    """Dollars an hour."""
    data = INSTANCE_TYPES[kind]
    base = 0.034 * data["VCpuInfo"]["DefaultVCpus"] + 0.0035 * data["MemoryInfo"]["SizeInMiB"] / 1024
    base += 0.02 * data.get("GpuInfo", {}).get("TotalGpuMemoryInMiB", 0) / 1024
    return round(base * (1 if region == "us-east-1" else 1 + 0.2 * _fraction(region)), 4)


def spot(kind, zone):
    """Dollars an hour: a quarter to a half of the on-demand price."""
    return round(on_demand(kind, zone[:-1]) * (0.25 + 0.25 * _fraction(kind, zone)), 4)


def _history(response):
    filters = response._filters_from_querystring()
    kinds = response._get_param("InstanceTypes", []) or filters.get("instance-type")
    zone_asked = response._get_param("AvailabilityZone")
    zones = [zone_asked] if zone_asked else filters.get("availability-zone")
    products = response._get_param("ProductDescriptions", []) or filters.get("product-description") or [
        "Linux/UNIX", "Windows"]
    start = response._get_param("StartTime")
    rows = []
    for offering in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(response.region, []):
        kind, zone = offering["InstanceType"], offering["Location"]
        known = "spot" in INSTANCE_TYPES.get(kind, {}).get("SupportedUsageClasses", [])
        if known and (not kinds or kind in kinds) and (not zones or zone in zones):
            rows += [row for product in products for row in _rows(kind, zone, product, start)]
    token = int(response._get_param("NextToken") or 0)
    size = int(response._get_param("MaxResults") or 1000)
    following = str(token + size) if len(rows) > token + size else ""
    return ActionResult({"SpotPriceHistory": rows[token:token + size], "NextToken": following})


def _rows(kind, zone, product, start):
    """The price now, and, unless only the present was asked for, what it was yesterday."""
    now = datetime.now(timezone.utc)
    windows = 1.8 if product.startswith("Windows") else 1
    changed = now - timedelta(minutes=10 + 300 * _fraction(kind, zone, "changed"))
    row = {"InstanceType": kind, "AvailabilityZone": zone, "ProductDescription": product,
           "SpotPrice": f"{spot(kind, zone) * windows:.6f}", "Timestamp": changed}
    recent = start is not None and abs((now - _moment(start)).total_seconds()) < 3600
    if recent:
        return [row]
    return [row, {**row, "SpotPrice": f"{spot(kind, zone) * windows * 1.05:.6f}",
                  "Timestamp": changed - timedelta(days=1)}]


def _moment(value):
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def get_products(request):
    """Pricing's GetProducts: (status, answer) for a JSON request."""
    wanted = {f["Field"]: f["Value"] for f in request.get("Filters", [])}
    if request.get("ServiceCode") != "AmazonEC2":
        return 400, {"__type": "NotFoundException", "message": "Invalid service code"}
    region = wanted.get("regionCode", "us-east-1")
    if "instanceType" in wanted:
        products = _compute(wanted, region)
    else:
        products = _storage(wanted, region)
    return 200, {"FormatVersion": "aws_v1", "PriceList": [json.dumps(product) for product in products]}


def _compute(wanted, region):
    kind = wanted["instanceType"]
    attributes = {
        "instanceType": kind, "regionCode": region, "operatingSystem": "Linux", "tenancy": "Shared",
        "preInstalledSw": "NA", "capacitystatus": "Used", "licenseModel": "No License required",
        "marketoption": "OnDemand", "servicecode": "AmazonEC2", "locationType": "AWS Region",
    }
    if kind not in INSTANCE_TYPES or not _matches(attributes, wanted, "Compute Instance"):
        return []
    return [_product("Compute Instance", attributes, "Hrs", on_demand(kind, region))]


def _storage(wanted, region):
    found = []
    for name, price in VOLUMES.items():
        attributes = {"volumeApiName": name, "regionCode": region, "servicecode": "AmazonEC2", "locationType": "AWS Region"}
        if _matches(attributes, wanted, "Storage"):
            found.append(_product("Storage", attributes, "GB-Mo", price))
    return found


def _matches(attributes, wanted, family):
    return all(value == (family if field == "productFamily" else attributes.get(field, value))
               for field, value in wanted.items())


def _product(family, attributes, unit, price):
    sku = hashlib.sha256(json.dumps(attributes, sort_keys=True).encode()).hexdigest()[:16].upper()
    term, rate = f"{sku}.JRTCKXETXF", f"{sku}.JRTCKXETXF.6YS6EN2CT7"
    dimension = {"unit": unit, "endRange": "Inf", "beginRange": "0", "rateCode": rate, "appliesTo": [],
                 "description": f"${price} per {unit}", "pricePerUnit": {"USD": f"{price:.10f}"}}
    return {
        "product": {"productFamily": family, "attributes": attributes, "sku": sku},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {term: {"priceDimensions": {rate: dimension}, "sku": sku, "offerTermCode": "JRTCKXETXF",
                                      "effectiveDate": "2026-11-01T00:00:00Z", "termAttributes": {}}}},
        "version": "20261101000000", "publicationDate": "2026-11-01T00:00:00Z",
    }
