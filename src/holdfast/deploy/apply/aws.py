"""AWS through boto3: packages into S3, stacks through CloudFormation. Needs `holdfast[aws]`.

Endpoint, region and credentials are found by boto3 as by every AWS tool: environment, profile, role of the machine.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.deploy.bundle import Bundle
from holdfast.deploy.errors import ApplyFailed, ToolMissing
from holdfast.deploy.render.files import json_text

_POLL_S = 5
_POLLS_MAX = 360
"""Half an hour: a load balancer takes minutes, tasks that never become healthy much longer."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A CloudFormation stack as it is now."""

    name: str
    change: str
    """`created`, `updated` or `unchanged`."""
    outputs: Mapping[str, str]


class Aws:
    """One session: a region and credentials.

    Args:
        region: None: as configured for AWS tools.
        poll_s: Seconds between two looks at a stack that is being changed.
    Raises:
        ToolMissing: boto3 is not installed.
    """

    def __init__(self, region: str | None = None, *, poll_s: float = _POLL_S) -> None:
        try:
            boto3: Any = importlib.import_module("boto3")  # it has no types
        except ImportError:
            raise ToolMissing("AWS needs the package boto3", hint="pip install 'holdfast[aws]'") from None
        self._errors: Any = importlib.import_module("botocore.exceptions")
        self._boto_error: Any = importlib.import_module("boto3.exceptions").Boto3Error  # of uploads
        self._session: Any = boto3.Session(region_name=region)
        self._poll_s = poll_s
        if self._session.region_name is None:
            raise ApplyFailed("no AWS region is chosen", hint="--region eu-central-1, or set AWS_REGION")

    def upload(self, bundle: Bundle, bucket: str, prefix: str) -> str:
        """Put the package into the bucket, unless it is there; returns its key.

        Raises:
            ApplyFailed: no such bucket, or no permission.
        """
        key = f"{prefix}/{bundle.digest}.zip"
        s3 = self._client("s3")
        with self._told(f"s3://{bucket}"):
            if not _is_there(s3, bucket, key):
                s3.upload_file(str(bundle.path), bucket, key)
        return key

    def apply_stack(self, name: str, template: Mapping[str, Any], parameters: Mapping[str, str]) -> Stack:
        """Create or update the stack and wait until that is done.

        Raises:
            ApplyFailed: with the first reason that CloudFormation gives. It has rolled back what it had begun.
        """
        cloudformation = self._client("cloudformation")
        arguments: dict[str, Any] = {
            "StackName": name,
            "TemplateBody": json_text(template),
            "Parameters": [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            "Capabilities": ["CAPABILITY_IAM"],
            "Tags": [{"Key": "holdfast", "Value": name}],
        }
        with self._told(f"stack {name}"):
            status = self._status(cloudformation, name)
            if status == "ROLLBACK_COMPLETE":
                # What is left of a first attempt that failed; CloudFormation can only delete it.
                cloudformation.delete_stack(StackName=name)
                self._wait(cloudformation, "stack_delete_complete", name)
                status = None
            if status is None:
                cloudformation.create_stack(**arguments)
                self._wait(cloudformation, "stack_create_complete", name)
                return Stack(name, "created", self.outputs(name))
            try:
                cloudformation.update_stack(**arguments)
            except cloudformation.exceptions.ClientError as error:
                if "No updates are to be performed" not in str(error):
                    raise
                return Stack(name, "unchanged", self.outputs(name))
            self._wait(cloudformation, "stack_update_complete", name)
            return Stack(name, "updated", self.outputs(name))

    def outputs(self, name: str) -> dict[str, str]:
        """What the stack tells about what it has made.

        Raises:
            ApplyFailed: there is no such stack.
        """
        with self._told(f"stack {name}"):
            stack = self._client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    @contextlib.contextmanager
    def _told(self, about: str) -> Generator[None]:
        """Errors of AWS become one line that says what they are about."""
        try:
            yield
        except self._errors.NoCredentialsError as error:
            raise ApplyFailed("AWS: no credentials", hint="try: aws sts get-caller-identity") from error
        except self._errors.ClientError as error:
            told = error.response.get("Error", {})
            raise ApplyFailed(f"{about}: {told.get('Code')}: {told.get('Message')}") from error
        except (self._errors.BotoCoreError, self._boto_error) as error:
            raise ApplyFailed(f"{about}: {error}") from error

    def _client(self, service: str) -> Any:
        try:
            return self._session.client(service)
        except self._errors.BotoCoreError as error:
            raise ApplyFailed(f"AWS: {error}") from error

    @staticmethod
    def _status(cloudformation: Any, name: str) -> str | None:
        try:
            return str(cloudformation.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"])
        except cloudformation.exceptions.ClientError as error:
            if "does not exist" not in str(error):
                raise
            return None

    def _wait(self, cloudformation: Any, until: str, name: str) -> None:
        try:
            limits = {"Delay": self._poll_s, "MaxAttempts": _POLLS_MAX}
            cloudformation.get_waiter(until).wait(StackName=name, WaiterConfig=limits)
        except self._errors.WaiterError as error:
            raise ApplyFailed(
                f"stack {name}: {_reason(cloudformation, name) or error}",
                hint=f"all of it: aws cloudformation describe-stack-events --stack-name {name}",
            ) from error


def _reason(cloudformation: Any, name: str) -> str:
    """The oldest failure of the last change: the others follow from it."""
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    failed = [event for event in events if event["ResourceStatus"].endswith("_FAILED")]
    if not failed:
        return ""
    first = failed[-1]
    return f"{first['LogicalResourceId']}: {first.get('ResourceStatusReason', first['ResourceStatus'])}"


def _is_there(s3: Any, bucket: str, key: str) -> bool:
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except s3.exceptions.ClientError as error:
        if error.response["Error"]["Code"] not in ("404", "NoSuchKey", "NotFound"):
            raise
        s3.head_bucket(Bucket=bucket)  # which of the two is missing
        return False
    return True
