"""Images and the public SSM parameters that name them; as on AWS, each region has its own ids."""

import hashlib
from datetime import datetime, timezone

from moto.core.utils import utcnow
from moto.ec2.models.amis import Ami, AmiBackend
from moto.ssm.models import Parameter, ParameterDict

CANONICAL, AMAZON = "099720109477", "137112412989"

# name with {arch} → (owner, root device, GiB of the snapshot, SSM parameters with {arch} as x86_64/arm64 or amd64/arm64)
_UBUNTU = "/aws/service/canonical/ubuntu/server"
_LEARNING = "/aws/service/deeplearning/ami/{arch}"
IMAGES = {
    "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{deb}-server-20261101":
        (CANONICAL, "/dev/sda1", 8, [_UBUNTU + "/24.04/stable/current/{deb}/hvm/ebs-gp3/ami-id"]),
    "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-{deb}-server-20261101":
        (CANONICAL, "/dev/sda1", 8, [_UBUNTU + "/22.04/stable/current/{deb}/hvm/ebs-gp2/ami-id"]),
    "al2023-ami-2023.9.20261101.0-kernel-6.12-{arch}":
        (AMAZON, "/dev/xvda", 8, [f"/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-{kernel}-{{arch}}"
                                  for kernel in ("default", "6.1", "6.12")]),
    "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 24.04) {arch} 20261101":
        (AMAZON, "/dev/sda1", 75, [_LEARNING + f"/{kind}/latest/ami-id" for kind in (
            "base-oss-nvidia-driver-gpu-ubuntu-24.04", "base-with-single-cuda-ubuntu-24.04")]),
    "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) {arch} 20261101":
        (AMAZON, "/dev/sda1", 75, [_LEARNING + f"/{kind}/latest/ami-id" for kind in (
            "base-oss-nvidia-driver-gpu-ubuntu-22.04", "base-with-single-cuda-ubuntu-22.04")]),
    "Deep Learning OSS Nvidia Driver AMI GPU PyTorch 2.12 (Ubuntu 24.04) {arch} 20261101":
        (AMAZON, "/dev/sda1", 75, [_LEARNING + "/oss-nvidia-driver-gpu-pytorch-2.12-ubuntu-24.04/latest/ami-id"]),
    "Deep Learning Base OSS Nvidia Driver GPU AMI (Amazon Linux 2023) {arch} 20261101":
        (AMAZON, "/dev/xvda", 75, [_LEARNING + f"/{kind}/latest/ami-id" for kind in (
            "base-oss-nvidia-driver-gpu-amazon-linux-2023", "base-with-single-cuda-amazon-linux-2023")]),
}
ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}


def patch():
    AmiBackend._load_amis = _load_images
    Ami.block_device_mappings = property(_mappings)
    ParameterDict._check_loading_status = _load_parameters


def _each():
    """(name, architecture, owner, root device, GiB, parameters) of every image."""
    for template, (owner, device, size, parameters) in IMAGES.items():
        for arch, deb in ARCHITECTURES.items():
            words = {"arch": arch, "deb": deb}
            yield template.format(**words), arch, owner, device, size, [p.format(**words) for p in parameters]


def image_id(name, region):
    return "ami-" + hashlib.sha256(f"{region}/{name}".encode()).hexdigest()[:17]


def _load_images(backend):
    for name, arch, owner, device, size, _ in _each():
        identifier = image_id(name, backend.region_name)
        image = Ami(backend, identifier, name=name, description=name, owner_id=owner, owner_alias="amazon", public=True,
                    virtualization_type="hvm", architecture=arch, hypervisor="xen", root_device_type="ebs",
                    root_device_name=device, image_location=f"amazon/{name}", sriov="simple",
                    creation_date=datetime(2026, 11, 1, tzinfo=timezone.utc), region_name=backend.region_name + "a")
        image.ebs_snapshot.volume.size = size
        image.ena_support = True
        backend.amis[identifier] = image


def _mappings(image):
    return [{"DeviceName": image.root_device_name,
             "Ebs": {"SnapshotId": image.ebs_snapshot.id, "VolumeSize": image.ebs_snapshot.volume.size,
                     "DeleteOnTermination": True, "VolumeType": "gp3", "Encrypted": False}}]


def _load_parameters(store, _key):
    if store.__dict__.setdefault("loaded_by_the_rig", False):
        return
    store.loaded_by_the_rig = True
    for name, _, _, _, _, parameters in _each():
        for parameter in parameters:
            dict.setdefault(store, parameter, []).append(Parameter(
                account_id=store.account_id, name=parameter, value=image_id(name, store.region_name),
                parameter_type="String", description=None, allowed_pattern=None, keyid=None,
                last_modified_date=utcnow().timestamp(), version=1, data_type="aws:ec2:image"))
