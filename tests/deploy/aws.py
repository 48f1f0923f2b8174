"""AWS on this machine: moto as a real HTTP server, and the one thing it does not do without Docker, which is to run
functions: a Lambda Invoke API that runs the packages that were uploaded, each in processes of its own."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import boto3
import httpx

from tests.deploy.support import PATIENCE_S, REPOSITORY, environment
from tests.support.restate_server import free_ports

REGION = "eu-central-1"
ACCOUNT = "123456789012"
ACCESS_KEY = "testing"
"""Of whoever has not assumed a role."""

RUNTIME = Path(__file__).with_name("lambda_runtime.py")

_INVOKE = re.compile(r"^/2015-03-31/functions/(?P<function>[^/]+)/invocations$")
_CREDENTIAL = re.compile(r"Credential=(?P<key>[^/]+)/")


@contextmanager
def running_moto(folder: Path) -> Iterator[str]:
    """AWS without its computers; yields the URL of all its APIs."""
    [port] = free_ports(1)
    log_path = folder / "moto.log"
    with log_path.open("w") as log, ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.deploy.moto_server", str(port)],
            cwd=REPOSITORY,
            env=environment({"MOTO_ACCOUNT_ID": ACCOUNT}),
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE_S
        while not _is_up(url):
            assert process.poll() is None, log_path.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)  # between two looks
        # Otherwise creating a function asks for a Docker daemon.
        httpx.post(f"{url}/moto-api/config", json={"lambda": {"use_docker": False}}).raise_for_status()
        yield url


def _is_up(url: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/moto-api/data.json").status_code == 200
    return False


def variables(moto_url: str, lambda_url: str = "") -> dict[str, str]:
    """Environment in which AWS is this one, for boto3 and for the Restate server alike."""
    found = {
        "AWS_ENDPOINT_URL": moto_url,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    return found | ({"AWS_ENDPOINT_URL_LAMBDA": lambda_url} if lambda_url else {})


def client(service: str, moto_url: str) -> Any:
    """A client of this AWS."""
    return boto3.client(
        service,
        endpoint_url=moto_url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key="testing",
    )


@dataclass(slots=True)
class Invocation:
    """One call of the Invoke API."""

    arn: str
    access_key: str
    event: dict[str, Any]
    error: str = ""


@dataclass
class LambdaService:
    """The Invoke API. Functions, their packages and settings are those in moto."""

    moto_url: str
    folder: Path
    url: str = ""
    invocations: list[Invocation] = field(default_factory=list)
    _idle: dict[str, list[subprocess.Popen[str]]] = field(default_factory=lambda: defaultdict(list))
    _all: list[subprocess.Popen[str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def invoke(self, arn: str, event: dict[str, Any], access_key: str) -> tuple[bytes, str]:
        """(payload, error kind or empty)."""
        invocation = Invocation(arn, access_key, event)
        self.invocations.append(invocation)
        process = self._take(arn)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(event) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            invocation.error = f"the process ended with {process.wait(PATIENCE_S)}"
            return json.dumps(
                {"errorType": "Runtime.ExitError", "errorMessage": invocation.error}
            ).encode(), "Unhandled"
        with self._lock:
            self._idle[arn].append(process)
        reply = json.loads(line)
        if "error" in reply:
            invocation.error = str(reply["error"])
            return json.dumps(reply["error"]).encode(), "Unhandled"
        return json.dumps(reply["payload"]).encode(), ""

    def _take(self, arn: str) -> subprocess.Popen[str]:
        with self._lock:
            if self._idle[arn]:
                return self._idle[arn].pop()
            process = self._start(arn)
            self._all.append(process)
            return process

    def _start(self, arn: str) -> subprocess.Popen[str]:
        configuration = client("lambda", self.moto_url).get_function(FunctionName=arn)["Configuration"]
        folder = self._unpacked(arn, configuration)
        settings = {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_FUNCTION_NAME": configuration["FunctionName"],
            "AWS_LAMBDA_FUNCTION_VERSION": configuration["Version"],
            "AWS_REGION": REGION,
            **configuration.get("Environment", {}).get("Variables", {}),
        }
        with (self.folder / "functions.log").open("a") as log:
            return subprocess.Popen(
                [sys.executable, "-S", "-P", str(RUNTIME), configuration["Handler"]],
                cwd=folder,
                env=settings,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def _unpacked(self, arn: str, configuration: dict[str, Any]) -> Path:
        folder = self.folder / re.sub(r"\W", "-", arn)
        if not folder.exists():
            s3 = client("s3", self.moto_url)
            # The version that moto keeps has the checksum of its package, and packages are named by their digest.
            for bucket in s3.list_buckets()["Buckets"]:
                for item in s3.list_objects_v2(Bucket=bucket["Name"]).get("Contents", []):
                    content = s3.get_object(Bucket=bucket["Name"], Key=item["Key"])["Body"].read()
                    if _checksum(content) == configuration["CodeSha256"]:
                        zipfile.ZipFile(io.BytesIO(content)).extractall(folder)
                        return folder
            raise AssertionError(f"no package of {arn}")
        return folder

    def close(self) -> None:
        for process in self._all:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(BrokenPipeError):
                        stream.close()


def _checksum(content: bytes) -> str:
    import base64
    import hashlib

    return base64.b64encode(hashlib.sha256(content).digest()).decode()


@contextmanager
def running_lambda(moto_url: str, folder: Path) -> Iterator[LambdaService]:
    """Functions that run; see `LambdaService`."""
    service = LambdaService(moto_url, folder)

    class Api(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            match = _INVOKE.match(self.path)
            key = _CREDENTIAL.search(self.headers.get("authorization", ""))
            if match is None or key is None:
                self._answer(404, b'{"Message": "not the Invoke API"}', "")
                return
            try:
                payload, error = service.invoke(unquote(match["function"]), json.loads(body), key["key"])
            except Exception as failure:  # noqa: BLE001 - AWS answers 500 as well
                self._answer(500, json.dumps({"Message": repr(failure)}).encode(), "")
            else:
                self._answer(200, payload, error)

        def _answer(self, status: int, payload: bytes, error: str) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            if error:
                self.send_header("x-amz-function-error", error)
            self.end_headers()
            with suppress(BrokenPipeError, ConnectionResetError):  # a server that was killed at the end of a test
                self.wfile.write(payload)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    api = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    thread = threading.Thread(target=api.serve_forever, daemon=True)
    thread.start()
    service.url = f"http://127.0.0.1:{api.server_port}"
    try:
        yield service
    finally:
        api.shutdown()
        api.server_close()
        service.close()
