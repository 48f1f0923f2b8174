"""ECS on Fargate against moto: the command makes the stack, and AWS's own API then tells what is there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
import yaml

from holdfast.deploy.apply.aws import Aws
from holdfast.deploy.errors import ApplyFailed
from tests.deploy import aws
from tests.deploy.support import cli, json_of, rendered
from tests.deploy.variants import IMAGE


@pytest.fixture(scope="module")
def moto_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with aws.running_moto(tmp_path_factory.mktemp("aws")) as url:
        yield url


@pytest.fixture(scope="module")
def network(moto_url: str) -> list[str]:
    """A network as the parameters of the stack describe it."""
    ec2 = aws.client("ec2", moto_url)
    vpc = ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{number}.0/24", AvailabilityZone=f"{aws.REGION}{zone}")
        for number, zone in enumerate("ab")
    ]
    group = ec2.create_security_group(GroupName="restate", Description="the Restate server", VpcId=vpc)["GroupId"]
    identifiers = ",".join(subnet["Subnet"]["SubnetId"] for subnet in subnets)
    given = {"VpcId": vpc, "SubnetIds": identifiers, "RestateSecurityGroupId": group}
    return [word for name, value in given.items() for word in ("--parameter", f"{name}={value}")]


def apply(moto_url: str, network: list[str], image: str = IMAGE, *more: str) -> Any:
    line = ["deploy", "apply", "--mechanism", "fargate", "greeter:app", "--image", image, "--no-register"]
    return json_of(*line, *network, *more, env=aws.variables(moto_url))


def test_the_stack_is_a_service_behind_a_load_balancer(moto_url: str, network: list[str], project: Path) -> None:
    uri = apply(moto_url, network, IMAGE, "--env", "LEVEL=info")["address"]["uri"]
    [balancer] = aws.client("elbv2", moto_url).describe_load_balancers()["LoadBalancers"]
    assert (balancer["Type"], balancer["Scheme"]) == ("network", "internal")
    assert uri == f"http://{balancer['DNSName']}:9080"
    ecs = aws.client("ecs", moto_url)
    service = service_of(ecs, "greeter-1-0-0")
    assert service["desiredCount"] == 2
    task = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
    assert task["family"] == "greeter-1-0-0"
    [container] = task["containerDefinitions"]
    assert container["image"] == IMAGE
    assert container["command"][:3] == ["python", "endpoint.py", "greeter:app"]
    assert container["environment"] == [{"name": "LEVEL", "value": "info"}]


def test_the_task_definition_is_one_for_fargate(moto_url: str, project: Path) -> None:
    """The same document through the API of ECS, whose client checks every field, and which Fargate must accept."""
    template = yaml.safe_load(rendered("fargate", image=IMAGE, environment={"LEVEL": "info"})["template.yaml"])
    properties = template["Resources"]["TaskDefinition"]["Properties"]
    resolved = json.loads(
        json.dumps(properties), object_hook=lambda each: "x" if {*each} <= {"Ref", "Fn::GetAtt"} else each
    )
    task = aws.client("ecs", moto_url).register_task_definition(**camel_case(resolved))["taskDefinition"]
    assert task["compatibilities"] == ["EC2", "FARGATE"]
    assert (task["networkMode"], task["cpu"], task["memory"]) == ("awsvpc", "256", "512")
    [container] = task["containerDefinitions"]
    assert container["portMappings"] == [{"name": "restate", "containerPort": 9080, "protocol": "tcp"}]
    assert container["healthCheck"]["command"][0] == "CMD"


def camel_case(value: Any) -> Any:
    """CloudFormation's names as the API has them; names of log options are neither's."""
    if isinstance(value, list):
        return [camel_case(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name[0].lower() + name[1:]: each if name == "Options" else camel_case(each) for name, each in value.items()}


def test_only_restate_reaches_the_load_balancer_and_only_that_the_tasks(
    moto_url: str, network: list[str], project: Path
) -> None:
    apply(moto_url, network, "registry.example/walled:1.0.0", "--name", "walled")
    resources = aws.client("cloudformation", moto_url).describe_stack_resources(StackName="walled-1-0-0")
    made = {each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources["StackResources"]}
    ec2 = aws.client("ec2", moto_url)

    def sources(group_id: str) -> list[str]:
        [group] = ec2.describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
        [rule] = group["IpPermissions"]
        assert (rule["IpProtocol"], rule["FromPort"], rule["ToPort"], rule["IpRanges"]) == ("tcp", 9080, 9080, [])
        return [pair["GroupId"] for pair in rule["UserIdGroupPairs"]]

    assert sources(made["LoadBalancerSecurityGroup"]) == [network[-1].partition("=")[2]]
    assert sources(made["TaskSecurityGroup"]) == [made["LoadBalancerSecurityGroup"]]


def test_a_new_image_is_a_stack_of_its_own(moto_url: str, network: list[str], project: Path) -> None:
    first = apply(moto_url, network, "registry.example/moving:1", "--name", "moving")
    second = apply(moto_url, network, "registry.example/moving:2", "--name", "moving")
    assert first["address"] != second["address"]
    stacks = aws.client("cloudformation", moto_url).describe_stacks()["Stacks"]
    assert {"moving-1", "moving-2"} <= {stack["StackName"] for stack in stacks}


def test_service_connect_needs_no_load_balancer(moto_url: str, network: list[str], project: Path) -> None:
    before = len(aws.client("elbv2", moto_url).describe_load_balancers()["LoadBalancers"])
    more = ["--name", "connected", "--expose", "service-connect", "--parameter", "Namespace=internal"]
    told = apply(moto_url, network, IMAGE, *more)
    assert told["address"]["uri"] == "http://connected-1-0-0:9080"
    assert len(aws.client("elbv2", moto_url).describe_load_balancers()["LoadBalancers"]) == before


def service_of(ecs: Any, family: str) -> dict[str, Any]:
    """The one service that runs tasks of this family, in whichever cluster."""
    found = [
        service
        for cluster in ecs.list_clusters()["clusterArns"]
        for arn in ecs.list_services(cluster=cluster)["serviceArns"]
        for service in ecs.describe_services(cluster=cluster, services=[arn])["services"]
        if f"/{family}:" in service["taskDefinition"]
    ]
    [service] = found
    return service


def test_applied_again_nothing_is_made_twice_and_a_change_changes_it(
    moto_url: str, network: list[str], project: Path
) -> None:
    first = apply(moto_url, network, IMAGE, "--name", "again")
    assert apply(moto_url, network, IMAGE, "--name", "again") == first
    apply(moto_url, network, IMAGE, "--name", "again", "--replicas", "3")
    kept = aws.client("cloudformation", moto_url).get_template(StackName="again-1-0-0")["TemplateBody"]
    assert kept["Resources"]["Service"]["Properties"]["DesiredCount"] == 3


def test_a_missing_parameter_is_told_by_name(moto_url: str, network: list[str], project: Path) -> None:
    line = ["deploy", "apply", "--mechanism", "fargate", "greeter:app", "--image", IMAGE, "--name", "short"]
    result = cli(*line, *network[2:], env=aws.variables(moto_url))
    assert result.exit_code == 2
    assert "VpcId" in result.stderr


def test_without_a_region_or_boto3_one_line_says_what_to_do(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["deploy", "apply", "--mechanism", "fargate", "greeter:app", "--image", IMAGE]
    line += ["--parameter", "VpcId=v", "--parameter", "SubnetIds=s", "--parameter", "RestateSecurityGroupId=g"]
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    nothing = {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    result = cli(*line, env=nothing)
    assert (result.exit_code, result.stderr.splitlines()[-2:]) == (
        1,
        ["error HF0511: no AWS region is chosen", "  next: --region eu-central-1, or set AWS_REGION"],
    )
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    result = cli(*line, env=nothing)
    assert result.stderr.splitlines()[-2:] == [
        "error HF0510: AWS needs the package boto3",
        "  next: pip install 'holdfast[aws]'",
    ]


# What moto does not do: a stack that fails half-way, an update without changes. The part of CloudFormation's API that matters then, on a real port.


@dataclass
class Stacks:
    """CloudFormation whose new stacks end as `ends` says, one after the other."""

    ends: list[str]
    status: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, action: str) -> tuple[int, str]:
        self.asked.append(action)
        match action:
            case "DescribeStacks" if not self.status:
                return 400, _error("ValidationError", "Stack with id greeter does not exist")
            case "DescribeStacks":
                member = f"<StackName>greeter</StackName><StackStatus>{self.status}</StackStatus>"
                member += "<CreationTime>2026-01-01T00:00:00Z</CreationTime>"
                return 200, _result(action, f"<Stacks><member>{member}</member></Stacks>")
            case "UpdateStack":
                return 400, _error("ValidationError", "No updates are to be performed.")
            case "CreateStack":
                self.status = self.ends.pop(0)
                return 200, _result(action, "<StackId>greeter</StackId>")
            case "DeleteStack":
                self.status = ""
                return 200, _result(action, "")
            case "DescribeStackEvents":
                events = [
                    ("Service", "CREATE_FAILED", "Resource creation cancelled"),
                    ("LoadBalancer", "CREATE_FAILED", "subnet-1 is no subnet"),
                    ("Cluster", "CREATE_COMPLETE", ""),
                ]
                members = "".join(
                    f"<member><LogicalResourceId>{name}</LogicalResourceId><ResourceStatus>{status}</ResourceStatus>"
                    f"<ResourceStatusReason>{reason}</ResourceStatusReason></member>"
                    for name, status, reason in events
                )
                return 200, _result(action, f"<StackEvents>{members}</StackEvents>")
            case _:
                return 400, _error("InvalidAction", action)


def _result(action: str, body: str) -> str:
    space = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
    return f'<{action}Response xmlns="{space}"><{action}Result>{body}</{action}Result></{action}Response>'


def _error(code: str, message: str) -> str:
    return f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"


@contextmanager
def serving(stacks: Stacks) -> Iterator[str]:
    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            status, text = stacks.answer(body["Action"][0])
            self.send_response(status)
            self.send_header("content-type", "text/xml")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_stack_that_fails_tells_the_first_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Stacks(["ROLLBACK_COMPLETE"])) as url:
        for name, value in aws.variables(url).items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ApplyFailed, match="stack greeter: LoadBalancer: subnet-1 is no subnet"):
            Aws(poll_s=0.01).apply_stack("greeter", {"Resources": {}}, {})


def test_what_is_left_of_a_failed_stack_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks = Stacks(["CREATE_COMPLETE"], status="ROLLBACK_COMPLETE")
    with serving(stacks) as url:
        for name, value in aws.variables(url).items():
            monkeypatch.setenv(name, value)
        assert Aws(poll_s=0.01).apply_stack("greeter", {"Resources": {}}, {}).change == "created"
    changes = [action for action in stacks.asked if not action.startswith("Describe")]
    assert changes == ["DeleteStack", "CreateStack"]


def test_a_stack_without_changes_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Stacks([], status="CREATE_COMPLETE")) as url:
        for name, value in aws.variables(url).items():
            monkeypatch.setenv(name, value)
        assert Aws(poll_s=0.01).apply_stack("greeter", {"Resources": {}}, {}).change == "unchanged"
