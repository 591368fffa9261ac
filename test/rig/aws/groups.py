"""Security groups that are in use cannot be deleted."""

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.security_groups import SecurityGroupBackend

_delete = SecurityGroupBackend.delete_security_group


def patch():
    SecurityGroupBackend.delete_security_group = _delete_unless_used


def _delete_unless_used(backend, name=None, group_id=None):
    for instance in backend.all_instances():
        if instance.state != "terminated" and any(
                group.id == group_id or group.name == name for group in instance.security_groups):
            raise EC2ClientError("DependencyViolation", f"resource {group_id or name} has a dependent object")
    return _delete(backend, name, group_id)
