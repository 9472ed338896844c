"""A real fumehood server for tests: the command itself, in a process of its own, on loopback."""

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

SHARED_DATA = Path(os.environ.get("FUMEHOOD_TEST_DATA", "/var/lib/fumehood"))
"""Where templates are built once for all runs."""
COMMAND = Path(sys.executable).parent / "fumehood"
_START_SECONDS = 900
_STOP_SECONDS = 60
_POLL_SECONDS = 0.02


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def make_data_folder(path: Path) -> Path:
    """A new data folder at `path` that shares the built templates of SHARED_DATA."""
    path.mkdir(mode=0o700, parents=True)
    for name in ("templates", "guest-runtimes", "image-tools", "warm"):
        (SHARED_DATA / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        (path / name).symlink_to(SHARED_DATA / name)
    return path


class Service:
    """One running server. `environment` is what a client needs, and nothing else."""

    def __init__(self, data: Path, settings: Mapping[str, str] | None = None, port: int | None = None) -> None:
        self.data = data
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._clients: list[Any] = []
        self._known: dict[str, dict[str, str]] = {}
        # The small template, unless a test is about another one: it is built sooner, and its sessions start sooner.
        # And a small pool: several servers share the machine, and what waits in pools takes of its processors too.
        chosen = {"FUMEHOOD_TEMPLATE": "base", "FUMEHOOD_POOL_MIN": "1", "FUMEHOOD_POOL_MAX": "2"} | dict(
            settings or {}
        )
        self._settings = {"FUMEHOOD_DATA": str(data), "FUMEHOOD_PORT": str(self.port)} | chosen
        self.log = data / "server.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(COMMAND), "serve"],
                env=self._base_environment() | self._settings,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until_it_answers()

    @staticmethod
    def _base_environment() -> dict[str, str]:
        return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {self.log.read_text()}")
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/ping", timeout=5) as answer:
                if answer.status == 200:
                    return
            time.sleep(_POLL_SECONDS)
        raise AssertionError(f"the server did not answer: {self.log.read_text()}")

    def environment(self, principal: str = "default") -> dict[str, str]:
        """As `ask_for_environment`, but asked once: the command takes longer to start than many a test to run."""
        if principal not in self._known:
            self._known[principal] = self.ask_for_environment(principal)
        return dict(self._known[principal])

    def ask_for_environment(self, principal: str = "default") -> dict[str, str]:
        """The variables that `fumehood env` sets now for a client, with PATH and nothing else."""
        lines = subprocess.run(
            [str(COMMAND), "env", "--principal", principal],
            env=self._base_environment() | self._settings,
            check=True,
            capture_output=True,
            text=True,
            timeout=180,
        ).stdout.splitlines()
        exports = [line.removeprefix("export ") for line in lines if line.startswith("export ")]
        variables = dict(shlex.split(line)[0].split("=", 1) for line in exports)
        return {"PATH": os.environ["PATH"]} | variables

    def client(self, service: str = "bedrock-agentcore", principal: str = "default", **config: Any) -> Any:
        """A boto3 client of either plane for a principal of this server; its connections live as long as the server."""
        variables = self.environment(principal)
        made = boto3.client(
            service,
            endpoint_url=self.url,
            region_name=variables["AWS_REGION"],
            aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
            config=Config(**config),
        )
        self._clients.append(made)
        return made

    def _close_clients(self) -> None:
        while self._clients:
            self._clients.pop().close()

    def stop(self) -> int:
        """Ask it to end, as a service manager would, and wait; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(_STOP_SECONDS)
        self._close_clients()
        return code

    def restarted(self) -> "Service":
        """A new server on the same data folder and with the same settings, once this one has ended."""
        own = {name: value for name, value in self._settings.items() if name not in ("FUMEHOOD_DATA", "FUMEHOOD_PORT")}
        return Service(self.data, own)

    def kill(self) -> None:
        """End the server alone, as a crash would: its sandboxes are not told."""
        self.process.kill()
        self.process.wait(_STOP_SECONDS)
        self._close_clients()


@contextlib.contextmanager
def service(data: Path, settings: Mapping[str, str] | None = None) -> Iterator[Service]:
    """A server with a new data folder at `data`, stopped at the end."""
    running = Service(make_data_folder(data), settings)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


class Session:
    """A session of an interpreter, used through boto3."""

    def __init__(self, client: Any, interpreter: str = "aws.codeinterpreter.v1", **parameters: Any) -> None:
        self.client = client
        self.interpreter = interpreter
        started = client.start_code_interpreter_session(codeInterpreterIdentifier=interpreter, **parameters)
        self.id: str = started["sessionId"]

    def invoke(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The one result of a tool."""
        results = self.invoke_all(name, **arguments)
        assert len(results) == 1, results
        return results[0]

    def invoke_all(self, name: str, **arguments: Any) -> list[dict[str, Any]]:
        """Every result of a tool."""
        answer = self.client.invoke_code_interpreter(
            codeInterpreterIdentifier=self.interpreter, sessionId=self.id, name=name, arguments=arguments
        )
        with contextlib.closing(answer["stream"]) as stream:
            return [event["result"] for event in stream]

    def run(self, code: str, **arguments: Any) -> dict[str, Any]:
        """The result of Python code."""
        return self.invoke("executeCode", language="python", code=code, **arguments)

    def sh(self, command: str) -> dict[str, Any]:
        """The result of a shell command."""
        return self.invoke("executeCommand", command=command)

    def stop(self) -> None:
        """End the session."""
        self.client.stop_code_interpreter_session(codeInterpreterIdentifier=self.interpreter, sessionId=self.id)
