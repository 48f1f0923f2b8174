"""PURE: settings -> files. No file is read or written, no network, no clock; the same settings give the same bytes."""

from __future__ import annotations

from collections.abc import Callable

from holdfast.deploy.render.asgi import asgi_files
from holdfast.deploy.render.awslambda import lambda_files
from holdfast.deploy.render.fargate import fargate_files
from holdfast.deploy.render.files import RenderedFile
from holdfast.deploy.render.kubernetes import kubernetes_files
from holdfast.deploy.render.selfhosted import self_hosted_files
from holdfast.deploy.settings import DeploySettings, Mechanism

__all__ = ["RenderedFile", "render"]

_RENDERERS: dict[Mechanism, Callable[[DeploySettings], list[RenderedFile]]] = {
    "local": lambda _settings: [],  # a process of this machine needs no files
    "self-hosted": self_hosted_files,
    "kubernetes": kubernetes_files,
    "fargate": fargate_files,
    "lambda": lambda_files,
    "asgi": asgi_files,
}


def render(settings: DeploySettings) -> list[RenderedFile]:
    """Every file that the mechanism needs, the ones that its own tool reads first."""
    return _RENDERERS[settings.mechanism](settings)
