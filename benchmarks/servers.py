"""The servers that are measured: processes of their own, started here and stopped at the end."""

import contextlib
import os
import shlex
import socket
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]

from fumehood.cli.bench import servers
from fumehood.settings import Settings

_ENV_SECONDS = 60


@dataclass(frozen=True)
class Started:
    """A server of this run's own: its data folder, its process, and what `fumehood env` exports."""

    data: Path
    pid: int
    variables: Mapping[str, str]


@contextlib.contextmanager
def fumehood(warm: bool = True, template: str | None = None) -> Generator[Any]:
    """A fumehood server with a new data folder, beside the templates that are built already; a boto3 client of it.

    Its sessions are restored from a warm checkpoint, or if not `warm` started cold; of the default template, or of one.
    """
    with started(warm, None if template is None else {"FUMEHOOD_TEMPLATE": template}) as server:
        yield client(server.variables)


@contextlib.contextmanager
def started(warm: bool = True, settings: Mapping[str, str] | None = None) -> Generator[Started]:
    """The same, with further `settings`, as environment variables."""
    with tempfile.TemporaryDirectory(prefix="fumehood-benchmark-") as folder:
        data = Path(folder)
        for name in ("templates", "guest-runtimes"):
            built = Settings().data / name
            built.mkdir(mode=0o755, parents=True, exist_ok=True)
            (data / name).symlink_to(built)
        if not warm:
            # A file where checkpoints would be kept: none can be made, and a server without one starts cold.
            (data / "warm").touch()
            # Nor ahead of need.
            settings = {**(settings or {}), "FUMEHOOD_POOL_MAX": "0"}
        own = {"FUMEHOOD_DATA": folder, "FUMEHOOD_PORT": str(_free_port())}
        environment = {**os.environ, **(settings or {}), **own}
        with servers.started(environment, data / "server.log") as process:
            yield Started(data, process.pid, _variables(environment))


@contextlib.contextmanager
def stub(after_seconds: float = 0.0) -> Generator[Any]:
    """The stub that answers at once, or after a time; a boto3 client of it."""
    with servers.stub(after_seconds) as variables:
        yield client(variables)


def client(variables: Mapping[str, str]) -> Any:
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
        [servers.COMMAND, "env"], env=environment, check=True, capture_output=True, text=True, timeout=_ENV_SECONDS
    )
    lines = [line.removeprefix("export ") for line in answer.stdout.splitlines() if line.startswith("export ")]
    pairs = [shlex.split(line)[0].partition("=") for line in lines]
    return {name: value for name, _, value in pairs}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
