"""Deploy an application: render files for where it is to run, apply them, register it with a Restate server.

    settings = DeploySettings("greeter:app", "kubernetes", image="registry.example/greeter:1.0.0")
    for file in render(settings):
        print(file.path)

`render` is pure. What touches the world is in `holdfast.deploy.apply`, and the command `holdfast deploy` puts both
together.
"""

from holdfast.deploy.errors import ApplyFailed, InvalidDeployment, ToolMissing
from holdfast.deploy.render import RenderedFile, render
from holdfast.deploy.settings import MECHANISMS, DeploySettings, Mechanism, Source

__all__ = [
    "MECHANISMS",
    "ApplyFailed",
    "DeploySettings",
    "InvalidDeployment",
    "Mechanism",
    "RenderedFile",
    "Source",
    "ToolMissing",
    "render",
]
