"""The servers that are measured: processes of their own, started here and stopped at the end."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]

from fumehood.settings import Settings

_FUMEHOOD = Path(sys.executable).with_name("fumehood")
# The first start may have to build the template.
_START_SECONDS = 1_800
_STOP_SECONDS = 60
_POLL_SECONDS = 0.02


@contextlib.contextmanager
def fumehood(warm: bool = True, template: str | None = None) -> Generator[Any]:
    """A fumehood server with a new data folder, beside the templates that are built already; a boto3 client of it.

    Its sessions are restored from a warm checkpoint, or if not `warm` started cold; of the default template, or of one.
    """
    with tempfile.TemporaryDirectory(prefix="fumehood-benchmark-") as folder:
        data = Path(folder)
        for name in ("templates", "guest-runtimes"):
            built = Settings().data / name
            built.mkdir(mode=0o755, parents=True, exist_ok=True)
            (data / name).symlink_to(built)
        if not warm:
            # A file where checkpoints would be kept: none can be made, and a server without one starts cold.
            (data / "warm").touch()
        port = _free_port()
        environment = {**os.environ, "FUMEHOOD_DATA": folder, "FUMEHOOD_PORT": str(port)}
        if template is not None:
            environment["FUMEHOOD_TEMPLATE"] = template
        with (data / "server.log").open("wb") as log:
            process = subprocess.Popen([_FUMEHOOD, "serve"], env=environment, stdout=log, stderr=log)
        try:
            _wait_until_it_answers(process, f"http://127.0.0.1:{port}", data / "server.log")
            yield _client(_variables(environment))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(_STOP_SECONDS)


@contextlib.contextmanager
def stub() -> Generator[Any]:
    """The stub that answers at once; a boto3 client of it."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.stub"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield _client(
            {
                "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE": f"http://127.0.0.1:{port}",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "stub",
                "AWS_SECRET_ACCESS_KEY": "stub",
            }
        )
    finally:
        process.kill()
        process.wait()


def _client(variables: Mapping[str, str]) -> Any:
    """The data plane's client, as boto3 makes it by default."""
    return cast(Any, boto3).client(
        "bedrock-agentcore",
        endpoint_url=variables["AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"],
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
    )


def _variables(environment: Mapping[str, str]) -> dict[str, str]:
    """What `fumehood env` exports."""
    answer = subprocess.run(
        [_FUMEHOOD, "env"], env=environment, check=True, capture_output=True, text=True, timeout=_STOP_SECONDS
    )
    lines = [line.removeprefix("export ") for line in answer.stdout.splitlines() if line.startswith("export ")]
    pairs = [shlex.split(line)[0].partition("=") for line in lines]
    return {name: value for name, _, value in pairs}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}:\n{log.read_text()}")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/ping", timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"the server did not answer:\n{log.read_text()}")
