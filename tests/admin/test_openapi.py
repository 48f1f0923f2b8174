"""The OpenAPI documents: valid, complete, true of what is answered, and of a service the same as Restate's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from holdfast import Engine
from holdfast.admin.app import resources
from holdfast.admin.openapi import OPERATIONS
from tests.admin.conftest import System
from tests.admin.registry_table import register
from tests.admin.steps import play

METHODS = ("get", "post", "put", "patch", "delete")


async def document(system: System, path: str = "/openapi") -> dict[str, Any]:
    answer = await system.admin.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_admin_api_is_described_by_a_valid_document(holdfast_system: System):
    OpenAPIV31SpecValidator(await document(holdfast_system)).validate()


def test_every_route_is_described_and_nothing_else(engine: Engine):
    served = {
        f"{method} {path.replace(':path}', '}')}"
        for path, resource in resources(engine, None, 4).items()
        for method in resource.endpoints
    }
    assert served == set(OPERATIONS)


def test_the_page_lists_every_route_and_nothing_else():
    page = (Path(__file__).parents[2] / "docs" / "admin-api.md").read_text()
    listed = re.findall(r"^\| `([A-Z]+ /\S+)` \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(OPERATIONS)


async def test_operation_ids_are_used_once(holdfast_system: System):
    paths = (await document(holdfast_system))["paths"]
    found = [operation["operationId"] for item in paths.values() for operation in item.values()]
    assert len(found) == len(set(found))


@pytest.mark.restate_server
async def test_operations_of_restate_have_the_same_ids_and_parameters(restate_system: System, holdfast_system: System):
    theirs, ours = [
        {
            f"{method} {path}": (operation["operationId"], parameters(operation))
            for path, item in (await document(system))["paths"].items()
            for method, operation in item.items()
        }
        for system in (restate_system, holdfast_system)
    ]
    # What a cluster of Kafka readers has, and this engine has not.
    missing = {"get /kafka-clusters/{cluster_name}", "delete /kafka-clusters/{cluster_name}", "get /subscriptions"}
    assert {name: ours.get(name) for name in theirs if name not in missing} == {
        name: operation for name, operation in theirs.items() if name not in missing
    }


def parameters(operation: dict[str, Any]) -> set[tuple[str, str]]:
    return {(parameter["name"], parameter["in"]) for parameter in operation.get("parameters", [])}


ANSWERS = {
    "GET /version": "/version",
    "GET /cluster-health": "/cluster-health",
    "GET /deployments": "/deployments",
    "GET /deployments/{deployment}": "/deployments/{here}",
    "GET /services": "/services",
    "GET /services/{service}": "/services/Signup",
    "GET /services/{service}/handlers": "/services/Greeter/handlers",
    "GET /services/{service}/handlers/{handler}": "/services/Greeter/handlers/tuned",
    "GET /services/{service}/state/{key}": "/services/Counter/state/k",
    "GET /invocations": "/invocations",
    "GET /invocations/{invocation_id}": "/invocations/{i}",
    "GET /invocations/{invocation_id}/journal": "/invocations/{i}/journal",
    "PATCH /invocations/{invocation_id}/restart-as-new": "/invocations/{i}/restart-as-new",
    "GET /subscriptions": "/subscriptions",
    "GET /kafka-clusters": "/kafka-clusters",
}


@pytest.mark.parametrize("operation", ANSWERS)
async def test_answers_are_as_described(holdfast_system: System, operation: str):
    names = {
        "here": (await holdfast_system.admin.get("/services/Greeter")).json()["deployment_id"],
        "i": (await holdfast_system.ingress.post("/Greeter/steps", json="x")).headers["x-restate-id"],
    }
    assert (await holdfast_system.ingress.post("/Counter/k/add", json=1)).status_code == 200
    method, template = operation.split(" ")
    path = re.sub(r"\{(\w+)\}", lambda match: names[match[1]], ANSWERS[operation])
    answer = await holdfast_system.admin.request(method, path)
    await check_answer(holdfast_system, method, template, answer)


async def test_a_registration_is_as_described(holdfast_system: System, zoo: dict[str, str]):
    body = {"uri": f"{zoo['zoo']}/described/openapi"}
    answer = await holdfast_system.admin.post("/deployments", json=body)
    await check_answer(holdfast_system, "POST", "/deployments", answer)
    refused = await holdfast_system.admin.post("/deployments", json={"uri": f"{zoo['zoo']}/failing/openapi"})
    await check_answer(holdfast_system, "POST", "/deployments", refused)


async def check_answer(system: System, method: str, template: str, answer: httpx.Response) -> None:
    whole = await document(system)
    described = whole["paths"][template][method.lower()]["responses"][str(answer.status_code)]
    schema = described["content"]["application/json"]["schema"]
    jsonschema.validate(answer.json(), {**schema, "components": whole["components"]})


# --- services


def skeleton(value: Any) -> Any:
    """Without what is written for people; `true` and `{}` are the same schema."""
    if value is True:
        return {}
    if isinstance(value, dict):
        prose = ("description", "example", "title", "summary", "externalDocs", "servers", "license")
        return {
            name: sorted(item, key=str) if name == "enum" else skeleton(item)
            for name, item in value.items()
            if name not in prose or not isinstance(item, (str, dict, list))
        }
    if isinstance(value, list):
        return [skeleton(item) for item in value]
    return value


@pytest.mark.parametrize("service", ["Greeter", "Counter", "Signup"])
async def test_a_service_is_described_by_a_valid_document(holdfast_system: System, service: str):
    OpenAPIV31SpecValidator(await document(holdfast_system, f"/services/{service}/openapi")).validate()


@pytest.mark.restate_server
@pytest.mark.parametrize("service", ["Greeter", "Counter", "Signup"])
async def test_a_service_is_described_as_by_restate(restate_system: System, holdfast_system: System, service: str):
    path = f"/services/{service}/openapi"
    theirs, ours = await document(restate_system, path), await document(holdfast_system, path)
    assert skeleton(ours) == skeleton(theirs)


@pytest.mark.restate_server
@pytest.mark.parametrize("case", ["described", "private", "object", "workflow", "tuned"])
async def test_an_endpoint_is_described_as_by_restate(
    restate_system: System, holdfast_system: System, zoo: dict[str, str], case: str
):
    found: list[Any] = []
    for system in (restate_system, holdfast_system):
        uri = f"{zoo['zoo']}/{case}/openapi{case}"
        assert (await system.admin.post("/deployments", json={"uri": uri})).status_code == 201
        found.append(await document(system, f"/services/Zooopenapi{case}/openapi"))
    OpenAPIV31SpecValidator(found[1]).validate()
    assert skeleton(found[1]) == skeleton(found[0])


async def test_a_document_says_where_the_ingress_is(engine: Engine, holdfast_system: System, zoo: dict[str, str]):
    await play([register("described")], holdfast_system.apis, zoo, is_holdfast=True)
    assert "servers" not in await document(holdfast_system, "/services/Greeter/openapi")
