"""Register a deployment: `POST /deployments` on the admin API of a Restate server, or of a holdfast engine.

    register("http://127.0.0.1:9070", Address(uri="http://greeter:9080"))

Safe to repeat: a known address is answered 200 with the deployment that is there.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

import httpx

from holdfast.admin.client import http_client
from holdfast.deploy.errors import InvalidDeployment
from holdfast.deploy.render import awslambda, fargate, kubernetes
from holdfast.deploy.settings import DeploySettings
from holdfast.errors import DeploymentRefused, EngineStopped

# A server that has just been started answers within a second; discovery of a cold Lambda function takes several.
_REQUEST_TIMEOUT_S = 60.0
_LOOK_AGAIN_S = 0.2

_HINTS = {
    "META0003": "can the Restate server (not only you) reach it? is the application up? try: curl -v {where}/health",
    "META0005": "rename the service",
    "META0006": "a service keeps its type; add --breaking if no invocation of it is left",
    "META0012": "install another version of restate-sdk, or update the server",
    "META0015": "add --http1 only where HTTP/2 does not get through, and let the SDK choose its protocol",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a deployment is: a URI, or the qualified ARN of a Lambda function."""

    uri: str = ""
    arn: str = ""
    assume_role_arn: str = ""
    """What the server assumes to invoke the function."""
    use_http_11: bool = False
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Sent with every request to the deployment."""

    def __post_init__(self) -> None:
        if bool(self.uri) == bool(self.arn):
            raise InvalidDeployment("an address is a URI or an ARN", hint="give one of --uri and --arn")
        if self.arn and len(self.arn.split(":")) != 8:
            raise InvalidDeployment(
                f"{self.arn} names no version of the function",
                hint="…:function:<name>:<version>: what is registered must not change under running invocations",
            )

    @property
    def where(self) -> str:
        """The URI or ARN."""
        return self.uri or self.arn

    def request(self) -> dict[str, Any]:
        """The body that names it."""
        if self.arn:
            role = {"assume_role_arn": self.assume_role_arn} if self.assume_role_arn else {}
            return {"arn": self.arn, **role, **self._headers()}
        return {"uri": self.uri, "use_http_11": self.use_http_11, **self._headers()}

    def _headers(self) -> dict[str, Any]:
        return {"additional_headers": dict(self.headers)} if self.headers else {}


@dataclass(frozen=True, slots=True)
class Registered:
    """What the server answered."""

    id: str
    is_new: bool
    services: tuple[str, ...]
    answer: Mapping[str, Any]
    """The whole body."""


def address_of(
    settings: DeploySettings,
    outputs: Mapping[str, str] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    use_http_11: bool = False,
) -> Address:
    """Where the mechanism puts the application.

    Args:
        outputs: Of the CloudFormation stack, for lambda and fargate.
    Raises:
        InvalidDeployment: that cannot be known from the settings.
    """
    told = headers or {}
    outputs = outputs or {}
    match settings.mechanism:
        case "lambda":
            return Address(
                arn=_output(outputs, awslambda.ARN_OUTPUT),
                assume_role_arn=outputs.get(awslambda.ROLE_OUTPUT, ""),
                headers=told,
            )
        case "fargate":
            return Address(uri=_output(outputs, fargate.URI_OUTPUT), use_http_11=use_http_11, headers=told)
        case "kubernetes" if settings.operator:
            raise InvalidDeployment(
                "the Restate operator registers the deployment",
                hint="kubectl describe restatedeployment says how it went",
            )
        case "kubernetes":
            return Address(uri=kubernetes.service_url(settings), use_http_11=use_http_11, headers=told)
        case "asgi" if not settings.host:
            raise InvalidDeployment(
                "only the platform knows where the application is", hint="add --uri https://…, as the platform shows it"
            )
        case "asgi":
            return Address(uri=f"https://{settings.host}{settings.path}", use_http_11=use_http_11, headers=told)
        case _:
            default = settings.versioned_name if settings.mechanism == "self-hosted" else "127.0.0.1"
            uri = f"http://{settings.host or default}:{settings.port}{settings.path}"
            return Address(uri=uri, use_http_11=use_http_11, headers=told)


def _output(outputs: Mapping[str, str], name: str) -> str:
    if name not in outputs:
        raise InvalidDeployment(
            f"the stack has no output {name}", hint="apply first, or give the address by --uri or --arn"
        )
    return outputs[name]


def register(
    admin_url: str,
    address: Address,
    *,
    token: str = "",
    force: bool = False,
    breaking: bool = False,
    dry_run: bool = False,
    wait_s: float = 0.0,
) -> Registered:
    """Ask the server to discover and keep the deployment.

    Args:
        admin_url: Admin API of the server or engine.
        token: Sent as a bearer token, where the API asks for one.
        force: Discover again what is registered already.
        breaking: Accept changes that break callers, such as another type of a service.
        dry_run: Only try; nothing is kept.
        wait_s: How long to wait for an admin API that does not answer yet, seconds.
    Raises:
        DeploymentRefused: the server's own message and code.
        EngineStopped: nothing answers.
        InvalidRequest: no header can carry the token.
    """
    admin_url = admin_url.rstrip("/")
    body = {**address.request(), "force": force, "breaking": breaking, "dry_run": dry_run}
    with http_client(admin_url, timeout_s=_REQUEST_TIMEOUT_S, token=token) as http:
        answer = _post(http, f"{admin_url}/deployments", body, wait_s)
    if answer.status_code not in (200, 201):
        raise _refused(admin_url, address, answer)
    try:
        document = cast("dict[str, Any]", answer.json())
        services = tuple(str(service["name"]) for service in document["services"])
        return Registered(str(document["id"]), answer.status_code == 201, services, document)
    except (ValueError, KeyError, TypeError):
        raise _refused(admin_url, address, answer) from None


def _post(http: httpx.Client, url: str, body: dict[str, Any], wait_s: float) -> httpx.Response:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return http.post(url, json=body)
        except httpx.TransportError as error:
            # Registering twice is the same as once, so a lost answer is no reason to stop either.
            if time.monotonic() >= deadline:
                reason = str(error) or type(error).__name__
                raise EngineStopped(
                    f"no admin API answers at {url.removesuffix('/deployments')}: {reason}",
                    hint="start a server: holdfast restate up; or name another: --admin-url",
                ) from error
        time.sleep(_LOOK_AGAIN_S)


def _refused(admin_url: str, address: Address, answer: httpx.Response) -> DeploymentRefused:
    message, code = answer.text.strip(), None
    try:
        document = answer.json()
        message, code = str(document["message"]), document.get("restate_code")
    except (ValueError, KeyError, TypeError):
        pass  # not an error of the admin API: a proxy's, or another program's
    told = f"{answer.status_code} {code}" if code else str(answer.status_code)
    hint = _HINTS.get(code or "", "").format(where=address.uri or address.arn)
    if answer.status_code in (401, 403):
        hint = "the admin API asks for a token: --token, or $HOLDFAST_ADMIN_TOKEN"
    elif code is None and answer.status_code in (404, 405):
        hint = "is --admin-url the admin API? Restate's is on port 9070"
    return DeploymentRefused(
        f"{admin_url} refused {address.where}: {told}: {message or 'no reason given'}",
        status=answer.status_code,
        restate_code=code,
        hint=hint,
    )
