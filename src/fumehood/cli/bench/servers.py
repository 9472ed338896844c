"""The servers that are measured: one that runs already, or one started for the run; and the stub beside them."""

import contextlib
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fumehood.cli.env import client_variables
from fumehood.errors import ConfigurationError
from fumehood.identity.principals import ORDINARY
from fumehood.settings import Settings

COMMAND = Path(sys.executable).with_name("fumehood")
# The first start may have to build the template.
_START_SECONDS = 1_800
_STOP_SECONDS = 60
_POLL_SECONDS = 0.02
_REGION = "us-east-1"


class ServerError(Exception):
    """There is no server to measure: the message says why."""


@dataclass(frozen=True)
class Server:
    """A server that answers. `variables` are a client's; `pid` is None unless it was started for this run."""

    variables: Mapping[str, str]
    pid: int | None

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.variables["AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"]


@contextlib.contextmanager
def found_or_started() -> Generator[Server]:
    """The server that `fumehood env` describes; if none answers there, one on the same data folder, until the end."""
    settings = Settings()
    with contextlib.suppress(ConfigurationError):
        variables = client_variables(settings, ORDINARY)
        if answers(variables["AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"], variables.get("AWS_CA_BUNDLE")):
            yield Server(variables, None)
            return
    with started(dict(os.environ), settings.data / "bench.log") as process:
        yield Server(client_variables(settings, ORDINARY), process.pid)


@contextlib.contextmanager
def started(environment: Mapping[str, str], log: Path) -> "Generator[subprocess.Popen[bytes]]":
    """`fumehood serve` with that environment and nothing else, once it answers; stopped at the end."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen([COMMAND, "serve"], env=environment, stdout=output, stderr=output)
    try:
        _wait_until_it_serves(process, log)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_STOP_SECONDS)


@contextlib.contextmanager
def stub(after_seconds: float = 0.0) -> Generator[Mapping[str, str]]:
    """The stub that answers at once, or after a time, in a process of its own; what a client of it needs."""
    command = [sys.executable, "-m", "fumehood.cli.bench.stub", str(after_seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        yield {
            "AWS_ENDPOINT_URL_BEDROCK_AGENTCORE": f"http://127.0.0.1:{port}",
            "AWS_REGION": _REGION,
            "AWS_ACCESS_KEY_ID": "stub",
            "AWS_SECRET_ACCESS_KEY": "stub",
        }
    finally:
        process.kill()
        process.wait()


def answers(url: str, certificate: str | None = None) -> bool:
    """Whether a fumehood server answers at `url`."""
    context = ssl.create_default_context(cafile=certificate) if url.startswith("https:") else None
    with (
        contextlib.suppress(OSError),
        urllib.request.urlopen(f"{url}/ping", timeout=5, context=context) as answer,
    ):
        return answer.status == 200
    return False


def _wait_until_it_serves(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Until it has written where it serves, which it does once it listens."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"the server ended with {process.returncode}:\n{log.read_text()}")
        if b"Point a client at it" in log.read_bytes():
            return
        time.sleep(_POLL_SECONDS)
    raise ServerError(f"the server did not listen within {_START_SECONDS} s:\n{log.read_text()}")
