"""What moto's EC2 and its neighbours lack or get otherwise than AWS, put right where the pipe can notice."""

from aws import fleet, groups, images, launch, prices, requirements, spot


def patch_all(machines, faults):
    """Put all of it in place, before moto makes its first back end."""
    launch.patch(machines)
    images.patch()
    spot.patch()
    prices.patch()
    groups.patch()
    requirements.patch()
    fleet.patch(faults)
