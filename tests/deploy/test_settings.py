"""Settings: each refusal names the flag and what is allowed; names and revisions come out valid, whatever goes in."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli import deploy_options
from holdfast.deploy import MECHANISMS, DeploySettings, InvalidDeployment, versions
from holdfast.deploy.settings import PLATFORMS, Mechanism, name_of
from holdfast.providers.settings import MECHANISMS as CONFIGURED_MECHANISMS
from tests.deploy.support import REPOSITORY, settings
from tests.deploy.variants import IMAGE, INVOKER, KEY

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a reference without an attribute": ({"reference": "greeter"}, "MODULE:APP: 'greeter' is not valid"),
    "a file for a module": ({"reference": "greeter.py:app:x"}, "MODULE:APP"),
    "a reference that would be code": ({"reference": "greeter:app; import os"}, "MODULE:APP"),
    "no such mechanism": ({"mechanism": "nomad"}, "--mechanism: 'nomad'"),
    "a name in capitals": ({"name": "Greeter"}, "--name: 'Greeter'"),
    "a name too long": ({"name": "g" * 41}, "--name"),
    "an absolute folder": ({"out": "/etc"}, "--out: '/etc'"),
    "a folder above": ({"out": "../up"}, "--out: '../up'"),
    "an old Python": ({"python": "3.8"}, "--python: '3.8'"),
    "port 0 elsewhere than local": ({"port": 0}, "--port: 0"),
    "a relative path": ({"path": "restate"}, "--path: 'restate'"),
    "a path with a query": ({"path": "/restate?x"}, "--path"),
    "a private key for a public one": ({"identity_keys": ("-----BEGIN PRIVATE KEY-----",)}, "--identity-key"),
    "a variable that no shell has": ({"environment": {"A B": "1"}}, "--env or --secret: 'A B'"),
    "a secret with a value": ({"secrets": ("KEY=value",)}, "--env or --secret: 'KEY=value'"),
    "a variable twice": ({"environment": {"A": "1"}, "secrets": ("A",)}, "A is given by --env and by --secret"),
    "a relative folder for data": ({"data": "data", "replicas": 1}, "--data: 'data'"),
    "data for two": ({"data": "/data", "replicas": 2}, "2 replicas"),
    "more than the most": ({"replicas": 11}, "--replicas: 11"),
    "no CPU": ({"cpu": 0}, "--cpu, --memory"),
    "an image without a tag": ({"image": "greeter"}, "does not say which version"),
    "the latest image": ({"image": "greeter:latest"}, "does not say which version"),
    "an image in capitals": ({"image": "Greeter:1"}, "--image: 'Greeter:1'"),
    "a revision with a dot": ({"revision": "1.0"}, "--revision: '1.0'"),
    "a namespace with a dot": ({"namespace": "a.b"}, "--namespace"),
    "an invoker that is no principal": ({"invoker": "restate"}, "--invoker: 'restate'"),
    "an external id alone": ({"external_id": "x"}, "--external-id is a condition"),
    "an endless attempt": ({"timeout_s": 901}, "--timeout: 901"),
    "no such platform": ({"platforms": ("heroku",)}, "--platform: 'heroku'"),
    "no such exposure": ({"expose": "magic"}, "--expose: 'magic'"),
    "a size that Fargate does not have": (
        {"mechanism": "fargate", "memory_mib": 4096},
        "--cpu, --memory: '0.25, 4096'",
    ),
    "a CPU that Fargate does not have": ({"mechanism": "fargate", "cpu": 0.3}, "--cpu, --memory: '0.3, 512'"),
    "memory that Lambda does not have": ({"mechanism": "lambda", "memory_mib": 100}, "--memory: 100"),
    "secrets of Lambda": ({"mechanism": "lambda", "secrets": ("KEY",)}, "no secret store"),
    "data on Lambda": ({"mechanism": "lambda", "data": "/data", "replicas": 1}, "--data needs a disk"),
    "a path on Lambda": ({"mechanism": "lambda", "path": "/restate"}, "--path is for HTTP"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_valid_is_refused_with_its_flag(case: str) -> None:
    more, told = REFUSED[case]
    with pytest.raises(InvalidDeployment) as refused:
        settings(**{"mechanism": "self-hosted", **more})
    assert told in refused.value.message
    assert refused.value.hint


NAMES = {
    "greeter:app": "greeter",
    "apps.recon.app:app": "recon",
    "my_shop.orders:service": "orders",
    "app:app": "app",
    "main:api": "main",
    "Shop.Main:app": "shop",
    "_hidden:app": "hidden",
    "x2:app": "x2",
}


@pytest.mark.parametrize("reference", NAMES)
def test_the_name_says_what_it_is(reference: str) -> None:
    assert name_of(reference) == NAMES[reference]


_IDENTIFIER = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,60}", fullmatch=True)


@given(st.lists(_IDENTIFIER, min_size=1, max_size=4), _IDENTIFIER)
def test_every_reference_gives_a_valid_name(modules: list[str], attribute: str) -> None:
    made = DeploySettings(f"{'.'.join(modules)}:{attribute}", "kubernetes")
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", made.name)
    assert len(made.versioned_name) <= 63


@given(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True).filter(lambda tag: tag != "latest"))
def test_every_tag_gives_a_valid_revision(tag: str) -> None:
    made = settings("kubernetes", image=f"registry.example/greeter:{tag}")
    assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", made.versioned_name)


REVISIONS = {
    "registry.example/greeter:1.4.2": "1-4-2",
    "registry.example:5000/greeter:v1": "v1",
    f"registry.example/greeter@sha256:{'ab12' * 16}": "ab12ab12ab12",
    f"registry.example/greeter:2@sha256:{'ab12' * 16}": "2",
}


@pytest.mark.parametrize("image", REVISIONS)
def test_the_revision_is_the_images(image: str) -> None:
    assert settings("kubernetes", image=image).revision == REVISIONS[image]


def test_what_owns_data_has_one_name_for_all_revisions() -> None:
    assert settings("kubernetes", image=IMAGE).versioned_name == "greeter-1-0-0"
    assert settings("kubernetes", image=IMAGE, data="/data", replicas=1).versioned_name == "greeter"


def test_the_command_offers_what_there_is() -> None:
    assert deploy_options.MECHANISMS == MECHANISMS == get_args(Mechanism)
    assert deploy_options.PLATFORMS == PLATFORMS
    # What a configuration can name must be deployable.
    assert set(CONFIGURED_MECHANISMS) <= set(MECHANISMS)


def test_versions_are_those_that_the_tests_run_with() -> None:
    import json

    package = json.loads((REPOSITORY / "package.json").read_text())
    assert package["devDependencies"]["@restatedev/restate-server"] == versions.RESTATE
    lock = (REPOSITORY / "requirements.lock").read_text()
    assert f"\nhypercorn=={versions.HYPERCORN} " in lock
    assert all(image.startswith(f"python:{version}.") for version, image in versions.PYTHON_IMAGES.items())


def test_everything_that_can_be_told_is_accepted_together() -> None:
    made = settings(
        "lambda", identity_keys=(KEY,), invoker=INVOKER, external_id="e", environment={"A": "1"}, timeout_s=900
    )
    assert made.out == "deploy/lambda"
