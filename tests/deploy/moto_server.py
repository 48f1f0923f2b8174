"""moto as a server, with four things about its CloudFormation put right.

    python -m tests.deploy.moto_server PORT

`AWS::ElasticLoadBalancingV2::LoadBalancer` has a `Type`, which moto drops: every load balancer was one for applications.
And of `AWS::Lambda::Version`: on AWS, `Ref` gives the version's ARN (moto: its logical name); a stack changes a function before it publishes a version of it,
because the version refers to it (moto adds before it changes); and `DeletionPolicy: Retain` keeps a version that has left
the template (moto has no way to delete one at all).
"""

from __future__ import annotations

import sys
from typing import Any

from moto.awslambda.models import LambdaVersion
from moto.awslambda.utils import get_backend
from moto.cloudformation.parsing import ResourceMap
from moto.elbv2.models import FakeLoadBalancer, elbv2_backends
from moto.server import main

_VERSION = "AWS::Lambda::Version"


def _create(
    _class: Any, _name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_more: Any
) -> Any:
    properties = cloudformation_json["Properties"]
    backend = get_backend(account_id, region_name)
    function = backend.publish_version(properties["FunctionName"], properties.get("Description", ""))
    assert function is not None
    version = LambdaVersion({"Version": function.version})
    version.arn = function.function_arn  # type: ignore[attr-defined]
    return version


_update = ResourceMap.update


def _update_in_order(self: Any, template: dict[str, Any], parameters: dict[str, Any] | None = None) -> None:
    resources = template["Resources"]
    known = self._resource_json_map
    new = {name for name, resource in resources.items() if resource["Type"] == _VERSION and name not in known}
    rest = {name: resource for name, resource in resources.items() if name not in new}
    _update(self, {**template, "Resources": rest}, parameters)
    _update(self, template, parameters)


def _create_balancer(
    _class: Any, name: str, cloudformation_json: dict[str, Any], account_id: str, region_name: str, **_more: Any
) -> FakeLoadBalancer:
    properties = cloudformation_json["Properties"]
    return elbv2_backends[account_id][region_name].create_load_balancer(
        name,
        properties.get("SecurityGroups"),
        properties.get("Subnets"),
        scheme=properties.get("Scheme", "internet-facing"),
        loadbalancer_type=properties.get("Type"),
    )


FakeLoadBalancer.create_from_cloudformation_json = classmethod(_create_balancer)  # type: ignore[assignment]
LambdaVersion.create_from_cloudformation_json = classmethod(_create)  # type: ignore[assignment]
LambdaVersion.physical_resource_id = property(lambda self: self.arn)  # type: ignore[assignment, attr-defined]
setattr(LambdaVersion, "delete", lambda self, *_: None)  # noqa: B010 - the class has none to assign to
ResourceMap.update = _update_in_order

if __name__ == "__main__":
    main(["-H", "127.0.0.1", "-p", sys.argv[1]])
