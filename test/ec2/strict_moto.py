"""moto's server with permissions as AWS asks for them, where moto does not.

- What is tagged by the call that makes it needs the permission to tag.
- A token of the pipeline needs no signature to become a role's keys.
- Services that speak JSON refuse in JSON.
- EC2 has quotas: of no virtual CPU in Frankfurt, of five elsewhere.

Signatures are not looked at: moto computes those of requests with spaces in another way than AWS.
"""

import sys

from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.exceptions import JsonRESTError
from moto.iam.access_control import IAMRequest
from moto.server import main
from moto.servicequotas.models import ServiceQuotasBackend

TAG = "ec2:CreateTags"
SPEAK_JSON = {"ec2-instance-connect", "pricing", "servicequotas", "ssm"}

authorize = ActionAuthenticatorMixin._authenticate_and_authorize_normal_action
permitted = IAMRequest.check_action_permitted
denied = IAMRequest._raise_access_denied


def quota(backend, service_code, quota_code):
    value = 0.0 if backend.region_name == "eu-central-1" else 5.0
    return {"ServiceCode": service_code, "QuotaCode": quota_code, "Value": value}


def authorize_signed(response, resource="*"):
    if response._get_action() != "AssumeRoleWithWebIdentity":
        authorize(response, resource)


def permitted_with_tags(request, resource):
    permitted(request, resource)
    if request._service == "ec2" and any(name.startswith("TagSpecification.") for name in request._data):
        request._action = TAG
        permitted(request, resource)


def denied_in_its_words(request):
    if request._service in SPEAK_JSON:
        words = f"User: {request._access_key.arn} is not authorized to perform: {request._action}"
        raise JsonRESTError("AccessDeniedException", words)
    denied(request)


ActionAuthenticatorMixin._authenticate_and_authorize_normal_action = authorize_signed
IAMRequest.check_signature = lambda request: None
IAMRequest.check_action_permitted = permitted_with_tags
IAMRequest._raise_access_denied = denied_in_its_words
ServiceQuotasBackend.get_service_quota = quota
main(sys.argv[1:])
