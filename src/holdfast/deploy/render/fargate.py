"""ECS on Fargate, as one CloudFormation stack for each revision of the application.

Restate speaks HTTP/2 without TLS to services in its own network. An application load balancer takes HTTP/2 only with TLS,
so the load balancer here is a network one, which passes the connection on as it is; Service Connect is the alternative.
"""

from __future__ import annotations

from typing import Any

from holdfast.deploy.render.container import USER, command, container_files, health_command, variables
from holdfast.deploy.render.files import RenderedFile, yaml_text
from holdfast.deploy.settings import DeploySettings

TEMPLATE = "template.yaml"
URI_OUTPUT = "DeploymentUri"

_POLICY = "arn:${AWS::Partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"


def fargate_files(settings: DeploySettings) -> list[RenderedFile]:
    """The stack's template, and what the image is built from."""
    comment = (
        f"{settings.reference} on ECS Fargate. Values for the parameters come from your network:\n"
        f"    holdfast deploy apply --mechanism fargate {settings.reference} --image {settings.image} \\\n"
        "        --parameter VpcId=vpc-… --parameter SubnetIds=subnet-…,subnet-… "
        "--parameter RestateSecurityGroupId=sg-…"
    )
    return [
        RenderedFile(
            f"{settings.out}/{TEMPLATE}", yaml_text(fargate_template(settings), comment=comment), is_manifest=True
        ),
        *container_files(settings),
    ]


def stack_name(settings: DeploySettings) -> str:
    """One stack for each revision, so that the old one can be deleted when nothing runs there any more."""
    return settings.versioned_name


def secret_parameter(name: str) -> str:
    """The template's parameter for the ARN of one secret: letters and digits only."""
    return "Secret" + "".join(part.capitalize() for part in name.split("_"))


def fargate_template(settings: DeploySettings) -> dict[str, Any]:
    """The stack."""
    is_balanced = settings.expose == "load-balancer"
    parameters: dict[str, Any] = {
        "VpcId": {"Type": "AWS::EC2::VPC::Id", "Description": "Where the tasks run"},
        "SubnetIds": {
            "Type": "List<AWS::EC2::Subnet::Id>",
            "Description": "Private subnets with a way to the registry",
        },
        "RestateSecurityGroupId": {
            "Type": "AWS::EC2::SecurityGroup::Id",
            "Description": "Security group of the Restate server: nobody else may call",
        },
        "AssignPublicIp": {
            "Type": "String",
            "Default": "DISABLED",
            "AllowedValues": ["DISABLED", "ENABLED"],
            "Description": "ENABLED in public subnets without NAT, so that the image can be pulled",
        },
    }
    if not is_balanced:
        parameters["Namespace"] = {
            "Type": "String",
            "Description": "Cloud Map namespace that the Restate server's service is in",
        }
    for name in settings.secrets:
        parameters[secret_parameter(name)] = {
            "Type": "String",
            "Description": f"ARN of the Secrets Manager secret or SSM parameter with {name}",
        }
    uri = f"http://{settings.versioned_name}:{settings.port}{settings.path}"
    if is_balanced:
        uri = f"http://${{LoadBalancer.DNSName}}:{settings.port}{settings.path}"
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": f"{settings.reference}, called by a Restate server (rendered by holdfast deploy)",
        "Parameters": parameters,
        "Resources": {
            "Cluster": {"Type": "AWS::ECS::Cluster"},
            "LogGroup": {"Type": "AWS::Logs::LogGroup", "Properties": {"RetentionInDays": 30}}
            | {"DeletionPolicy": "Delete", "UpdateReplacePolicy": "Delete"},
            "ExecutionRole": _execution_role(settings),
            "TaskRole": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": _trust_in_tasks()}},
            "TaskDefinition": _task_definition(settings),
            **_network(settings),
            "Service": _service(settings),
        },
        "Outputs": {
            URI_OUTPUT: {
                "Description": "What is registered with Restate",
                "Value": {"Fn::Sub": uri} if is_balanced else uri,
            },
            "TaskRoleArn": {
                "Description": "Give it the permissions that handlers need",
                "Value": {"Fn::GetAtt": ["TaskRole", "Arn"]},
            },
        },
    }


def _trust_in_tasks() -> dict[str, Any]:
    principal = {"Service": "ecs-tasks.amazonaws.com"}
    statement = {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _execution_role(settings: DeploySettings) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "AssumeRolePolicyDocument": _trust_in_tasks(),
        "ManagedPolicyArns": [{"Fn::Sub": _POLICY}],
    }
    if settings.secrets:
        statement = {
            "Effect": "Allow",
            "Action": ["secretsmanager:GetSecretValue", "ssm:GetParameters"],
            "Resource": [{"Ref": secret_parameter(name)} for name in settings.secrets],
        }
        document = {"Version": "2012-10-17", "Statement": [statement]}
        properties["Policies"] = [{"PolicyName": "secrets", "PolicyDocument": document}]
    return {"Type": "AWS::IAM::Role", "Properties": properties}


def _task_definition(settings: DeploySettings) -> dict[str, Any]:
    port: dict[str, Any] = {"Name": "restate", "ContainerPort": settings.port, "Protocol": "tcp"}
    if settings.expose == "service-connect":
        port["AppProtocol"] = "http2"
    # Not read-only: a volume for /tmp would belong to root here, and the program runs as somebody else.
    container: dict[str, Any] = {
        "Name": settings.name,
        "Image": settings.image,
        "Essential": True,
        "Command": command(settings),
        "User": f"{USER}:{USER}",
        "PortMappings": [port],
        "HealthCheck": {
            "Command": ["CMD", *health_command(settings)],
            "Interval": 10,
            "Timeout": 5,
            "Retries": 3,
            "StartPeriod": 30,
        },
        "LinuxParameters": {"InitProcessEnabled": True},
        "StopTimeout": 20,
        "LogConfiguration": {
            "LogDriver": "awslogs",
            "Options": {
                "awslogs-group": {"Ref": "LogGroup"},
                "awslogs-region": {"Ref": "AWS::Region"},
                "awslogs-stream-prefix": settings.name,
            },
        },
    }
    if environment := variables(settings):
        container["Environment"] = [{"Name": name, "Value": value} for name, value in environment.items()]
    if settings.secrets:
        container["Secrets"] = [
            {"Name": name, "ValueFrom": {"Ref": secret_parameter(name)}} for name in settings.secrets
        ]
    properties = {
        "Family": settings.versioned_name,
        "Cpu": str(round(settings.cpu * 1024)),
        "Memory": str(settings.memory_mib),
        "NetworkMode": "awsvpc",
        "RequiresCompatibilities": ["FARGATE"],
        "RuntimePlatform": {"CpuArchitecture": "X86_64", "OperatingSystemFamily": "LINUX"},
        "ExecutionRoleArn": {"Fn::GetAtt": ["ExecutionRole", "Arn"]},
        "TaskRoleArn": {"Fn::GetAtt": ["TaskRole", "Arn"]},
        "ContainerDefinitions": [container],
    }
    return {"Type": "AWS::ECS::TaskDefinition", "Properties": properties}


def _network(settings: DeploySettings) -> dict[str, Any]:
    if settings.expose == "service-connect":
        return {"TaskSecurityGroup": _security_group("Tasks", settings.port, {"Ref": "RestateSecurityGroupId"})}
    balancer_group = {"Fn::GetAtt": ["LoadBalancerSecurityGroup", "GroupId"]}
    return {
        "LoadBalancerSecurityGroup": _security_group("Load balancer", settings.port, {"Ref": "RestateSecurityGroupId"}),
        "TaskSecurityGroup": _security_group("Tasks", settings.port, balancer_group),
        "LoadBalancer": {
            "Type": "AWS::ElasticLoadBalancingV2::LoadBalancer",
            "Properties": {
                "Type": "network",
                "Scheme": "internal",
                "Subnets": {"Ref": "SubnetIds"},
                "SecurityGroups": [balancer_group],
            },
        },
        "TargetGroup": {
            "Type": "AWS::ElasticLoadBalancingV2::TargetGroup",
            "Properties": {
                "VpcId": {"Ref": "VpcId"},
                "TargetType": "ip",
                "Protocol": "TCP",
                "Port": settings.port,
                "HealthCheckProtocol": "HTTP",
                "HealthCheckPath": f"{settings.path}/health",
                "HealthCheckIntervalSeconds": 10,
                "HealthyThresholdCount": 2,
                "UnhealthyThresholdCount": 3,
                "TargetGroupAttributes": [
                    # As long as running handlers get; the default of five minutes only holds up a release.
                    {"Key": "deregistration_delay.timeout_seconds", "Value": "20"}
                ],
            },
        },
        "Listener": {
            "Type": "AWS::ElasticLoadBalancingV2::Listener",
            "Properties": {
                "LoadBalancerArn": {"Ref": "LoadBalancer"},
                "Port": settings.port,
                "Protocol": "TCP",
                "DefaultActions": [{"Type": "forward", "TargetGroupArn": {"Ref": "TargetGroup"}}],
            },
        },
    }


def _security_group(of: str, port: int, source: dict[str, Any]) -> dict[str, Any]:
    rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "SourceSecurityGroupId": source}
    properties = {
        "GroupDescription": f"{of}: one port, called by one group",
        "VpcId": {"Ref": "VpcId"},
        "SecurityGroupIngress": [rule],
    }
    return {"Type": "AWS::EC2::SecurityGroup", "Properties": properties}


def _service(settings: DeploySettings) -> dict[str, Any]:
    network = {
        "AssignPublicIp": {"Ref": "AssignPublicIp"},
        "SecurityGroups": [{"Fn::GetAtt": ["TaskSecurityGroup", "GroupId"]}],
        "Subnets": {"Ref": "SubnetIds"},
    }
    properties: dict[str, Any] = {
        "Cluster": {"Ref": "Cluster"},
        "LaunchType": "FARGATE",
        "TaskDefinition": {"Ref": "TaskDefinition"},
        "DesiredCount": settings.replicas,
        "DeploymentConfiguration": {
            "MinimumHealthyPercent": 100,
            "MaximumPercent": 200,
            "DeploymentCircuitBreaker": {"Enable": True, "Rollback": True},
        },
        "NetworkConfiguration": {"AwsvpcConfiguration": network},
        "PropagateTags": "SERVICE",
    }
    if settings.expose == "service-connect":
        alias = {"DnsName": settings.versioned_name, "Port": settings.port}
        properties["ServiceConnectConfiguration"] = {
            "Enabled": True,
            "Namespace": {"Ref": "Namespace"},
            "Services": [{"PortName": "restate", "DiscoveryName": settings.versioned_name, "ClientAliases": [alias]}],
        }
        return {"Type": "AWS::ECS::Service", "Properties": properties}
    properties["HealthCheckGracePeriodSeconds"] = 60
    target = {"ContainerName": settings.name, "ContainerPort": settings.port, "TargetGroupArn": {"Ref": "TargetGroup"}}
    properties["LoadBalancers"] = [target]
    return {"Type": "AWS::ECS::Service", "DependsOn": "Listener", "Properties": properties}
