"""What a person types next, where a command of ours cannot go on by itself. PURE."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.deploy.render import awslambda, fargate
from holdfast.deploy.render.files import RenderedFile
from holdfast.deploy.render.kubernetes import kubectl_commands
from holdfast.deploy.render.selfhosted import compose_command
from holdfast.deploy.settings import DeploySettings


def next_steps(settings: DeploySettings) -> list[str]:
    """Commands, in order, to be run in the project's folder."""
    match settings.mechanism:
        case "local":
            return [f"holdfast deploy apply --mechanism local {settings.reference}"]
        case "self-hosted":
            return [" ".join(compose_command(settings)), _register(settings)]
        case "kubernetes":
            kubectl = [" ".join(command) for command in kubectl_commands(settings)]
            return [
                *_image(settings),
                *kubectl,
                *([] if settings.operator else [_register(settings, _image_flag(settings))]),
            ]
        case "fargate":
            parameters = "--parameter VpcId=vpc-… --parameter SubnetIds=subnet-…,subnet-… --parameter RestateSecurityGroupId=sg-…"
            apply = (
                f"holdfast deploy apply --mechanism fargate {settings.reference} {_image_flag(settings)} {parameters}"
            )
            return [*_image(settings), apply]
        case "lambda":
            return [f"holdfast deploy apply --mechanism lambda {settings.reference} --bucket …"]
        case "asgi":
            return [step for platform in settings.platforms for step in _platform_steps(settings, platform)]


def _image(settings: DeploySettings) -> list[str]:
    return [
        f"docker build --file {settings.out}/Dockerfile --tag {settings.image} .",
        f"docker push {settings.image}",
    ]


def _image_flag(settings: DeploySettings) -> str:
    return f"--image {settings.image}"


def _register(settings: DeploySettings, more: str = "") -> str:
    return f"holdfast deploy register --mechanism {settings.mechanism} {settings.reference} {more}".rstrip()


def _platform_steps(settings: DeploySettings, platform: str) -> list[str]:
    if platform == "fly":
        secrets = [f"fly secrets set {' '.join(f'{name}=…' for name in settings.secrets)}"] if settings.secrets else []
        deploy = f"fly deploy --config {settings.out}/fly.toml --dockerfile {settings.out}/Dockerfile"
        return [*secrets, deploy, _register(settings, f"--uri https://{settings.name}.fly.dev{settings.path}")]
    # Their files have no place for variables.
    names = [*settings.environment, *settings.secrets]
    if platform == "railway":
        given = [f"railway variables --set {name}=…" for name in names]
        deploy = f"railway up    # with {settings.out}/railway.json as the service's config file"
    else:
        given = [f"vercel env add {name} production" for name in names]
        deploy = f"cp -r {settings.out}/vercel/. . && vercel deploy --prod"
    return [*given, deploy, _register(settings, "--uri https://…")]


def plan(
    settings: DeploySettings, files: Sequence[RenderedFile], *, register_with: str = "", bucket: str = ""
) -> list[str]:
    """What applying would do, in order.

    Args:
        files: What would be written.
        register_with: Admin API; empty: no registration.
        bucket: Of the Lambda package.
    """
    steps = [f"write {file.path}" for file in files]
    match settings.mechanism:
        case "local":
            steps += [f"serve {settings.reference} on http://127.0.0.1:{settings.port}"]
        case "self-hosted":
            steps += [f"run {' '.join(compose_command(settings))}"]
        case "kubernetes":
            steps += [f"run {' '.join(command)}" for command in kubectl_commands(settings)]
        case "fargate":
            steps += [f"create or update the CloudFormation stack {fargate.stack_name(settings)}"]
        case "lambda":
            sources = [source.path for source in settings.sources]
            steps += [f"build a package of {', '.join([*sources, *settings.requirements, *settings.packages])}"]
            steps += [f"upload it to s3://{bucket or '<--bucket>'}/{settings.name}/<digest>.zip"]
            steps += [f"create or update the CloudFormation stack {awslambda.stack_name(settings)}"]
        case "asgi":
            return steps
    is_registered = register_with and not (settings.mechanism == "kubernetes" and settings.operator)
    return [*steps, f"register it with {register_with}"] if is_registered else steps
