"""AWS Lambda, as one CloudFormation stack: function, a version of it for each release, roles.

Restate is given the ARN of a version, never of the function: what began on one version ends there. So a version stays
when the stack moves on to the next one (`DeletionPolicy: Retain`).
"""

from __future__ import annotations

import re
from typing import Any

from holdfast.deploy.render.container import variables
from holdfast.deploy.render.entry import LAMBDA_MODULE, lambda_module
from holdfast.deploy.render.files import RenderedFile, yaml_text
from holdfast.deploy.settings import DeploySettings
from holdfast.deploy.versions import RESTATE_SDK, ZSTD

TEMPLATE = "template.yaml"
REQUIREMENTS = "lambda-requirements.txt"
ARN_OUTPUT = "FunctionVersionArn"
ROLE_OUTPUT = "InvokerRoleArn"

_BASIC_POLICY = "arn:${AWS::Partition}:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"


def lambda_files(settings: DeploySettings) -> list[RenderedFile]:
    """The stack's template, the module that Lambda imports, and what the package contains beside the application."""
    comment = (
        f"{settings.reference} on AWS Lambda:\n"
        f"    holdfast deploy apply --mechanism lambda {settings.reference} --bucket …\n"
        "builds the package, uploads it, creates or updates this stack and registers the new version."
    )
    template = yaml_text(lambda_template(settings), comment=comment)
    return [
        RenderedFile(f"{settings.out}/{TEMPLATE}", template, is_manifest=True),
        RenderedFile(f"{settings.out}/{LAMBDA_MODULE}.py", lambda_module(settings)),
        RenderedFile(f"{settings.out}/{REQUIREMENTS}", f"{RESTATE_SDK}\n{ZSTD}; python_version < '3.14'\n"),
    ]


def stack_name(settings: DeploySettings) -> str:
    """One stack for the function; its versions are inside."""
    return settings.name


def lambda_template(settings: DeploySettings) -> dict[str, Any]:
    """The stack. CloudFormation publishes a version when the resource has a new name, hence the revision in it."""
    version = "Version" + re.sub(r"[^a-zA-Z0-9]", "", settings.revision.title())
    outputs: dict[str, Any] = {
        ARN_OUTPUT: {"Description": "What is registered with Restate", "Value": {"Ref": version}},
        "ExecutionRoleArn": {
            "Description": "Give it the permissions that handlers need",
            "Value": {"Fn::GetAtt": ["ExecutionRole", "Arn"]},
        },
    }
    resources: dict[str, Any] = {
        "LogGroup": {
            "Type": "AWS::Logs::LogGroup",
            "DeletionPolicy": "Delete",
            "UpdateReplacePolicy": "Delete",
            "Properties": {"LogGroupName": f"/holdfast/{settings.name}", "RetentionInDays": 30},
        },
        "ExecutionRole": {
            "Type": "AWS::IAM::Role",
            "Properties": {
                "AssumeRolePolicyDocument": _policy(
                    {"Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
                ),
                "ManagedPolicyArns": [{"Fn::Sub": _BASIC_POLICY}],
            },
        },
        "Function": _function(settings),
        version: {
            "Type": "AWS::Lambda::Version",
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {"FunctionName": {"Ref": "Function"}, "Description": f"revision {settings.revision}"},
        },
    }
    if settings.invoker:
        resources["InvokerRole"] = _invoker_role(settings)
        outputs[ROLE_OUTPUT] = {
            "Description": "What Restate assumes to invoke the function (assume_role_arn)",
            "Value": {"Fn::GetAtt": ["InvokerRole", "Arn"]},
        }
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"{settings.reference}, invoked by a Restate server (rendered by holdfast deploy)",
        "Parameters": {
            "CodeBucket": {"Type": "String", "Description": "S3 bucket with the package"},
            "CodeKey": {"Type": "String", "Description": "The package, a zip file, in the bucket"},
        },
        "Resources": resources,
        "Outputs": outputs,
    }


def _function(settings: DeploySettings) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "FunctionName": settings.name,
        "Description": settings.reference,
        "Runtime": f"python{settings.python}",
        "Architectures": ["x86_64"],
        "Handler": f"{LAMBDA_MODULE}.handler",
        "Code": {"S3Bucket": {"Ref": "CodeBucket"}, "S3Key": {"Ref": "CodeKey"}},
        "MemorySize": settings.memory_mib,
        # An attempt that is cut off here is tried again from its journal.
        "Timeout": settings.timeout_s,
        "Role": {"Fn::GetAtt": ["ExecutionRole", "Arn"]},
        "LoggingConfig": {"LogGroup": {"Ref": "LogGroup"}},
    }
    if environment := variables(settings):
        properties["Environment"] = {"Variables": environment}
    return {"Type": "AWS::Lambda::Function", "Properties": properties}


def _invoker_role(settings: DeploySettings) -> dict[str, Any]:
    principal = {"AWS": settings.invoker}
    assume: dict[str, Any] = {"Principal": principal, "Action": "sts:AssumeRole"}
    if settings.external_id:
        assume["Condition"] = {"StringEquals": {"sts:ExternalId": settings.external_id}}
    # Sessions of EKS pods carry tags, and those are refused without this.
    tags = {"Principal": principal, "Action": "sts:TagSession"}
    invoke = {"Action": "lambda:InvokeFunction", "Resource": {"Fn::Sub": "${Function.Arn}:*"}}
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "Description": f"Lets Restate invoke versions of {settings.name}, and nothing else",
            "AssumeRolePolicyDocument": _policy(assume, tags),
            "Policies": [{"PolicyName": "invoke", "PolicyDocument": _policy(invoke)}],
        },
    }


def _policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement} for statement in statements]}
