"""`python -m benchmarks.s3`: gigabytes in S3 from sandboxes without a network, timed, and the memory that they take.

A server is started with a role for one prefix of a bucket in fumehood's own S3. Objects of 1 GB and 5 GB are copied out
of a sandbox and in again; a CSV of 1 GB is copied in, aggregated by pandas, polars and duckdb, and a report goes back.
"""

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import boto3  # pyright: ignore[reportMissingTypeStubs]
import cyclopts
from botocore.config import Config  # pyright: ignore[reportMissingTypeStubs]
from cyclopts import Parameter
from rich.console import Console

from benchmarks import servers
from fumehood.cli.bench import machine

GB = 1000**3
_ROLE = "arn:aws:iam::000000000000:role/benchmark"
_CSV = """
import random
lines = "".join(f"{n},{n % 97},{random.random():.9f},{'x' * 60}\\n" for n in range(100_000))
with open("table.csv", "w") as file:
    file.write("number,group,value,text\\n")
    while file.tell() < 1_000_000_000:
        file.write(lines)
"""
_AGGREGATIONS = {
    "pandas": 'import pandas as pd; t = pd.read_csv("back.csv", usecols=["group", "value"])\n'
    'r = t.groupby("group")["value"].mean(); print(len(r))',
    "polars": 'import polars as pl\nr = pl.scan_csv("back.csv").group_by("group").agg(pl.col("value").mean()).collect()'
    "\nprint(len(r))",
    "duckdb": "import duckdb\n"
    "r = duckdb.execute('select \"group\", avg(value) from \\'back.csv\\' group by 1').fetchall()\nprint(len(r))",
}
app = cyclopts.App(name="s3", help="Gigabytes in S3 from sandboxes without a network: time and memory.")


@dataclass(frozen=True)
class Figure:
    """One thing that was done: how long it took, and how large it was where that says something."""

    what: str
    seconds: float
    size_bytes: int | None = None

    def __str__(self) -> str:
        rate = "" if self.size_bytes is None else f"{self.size_bytes / self.seconds / 1e6:8.0f} MB/s"
        return f"{self.what:52}{self.seconds:8.1f} s {rate}"


class Session:
    """A session with the role, in which commands and code are timed."""

    def __init__(self, server: servers.Started) -> None:
        self._client = _boto3_client(server, "bedrock-agentcore")
        self._interpreter: str = _boto3_client(server, "bedrock-agentcore-control").create_code_interpreter(
            name="benchmark", networkConfiguration={"networkMode": "SANDBOX"}, executionRoleArn=_ROLE
        )["codeInterpreterId"]
        self.id: str = self._client.start_code_interpreter_session(
            codeInterpreterIdentifier=self._interpreter, sessionTimeoutSeconds=7200
        )["sessionId"]

    def invoke(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The result of a tool. AssertionError if it is an error."""
        answer = self._client.invoke_code_interpreter(
            codeInterpreterIdentifier=self._interpreter, sessionId=self.id, name=name, arguments=arguments
        )
        (result,) = [event["result"] for event in answer["stream"] if "result" in event]
        return result

    def sh(self, what: str, command: str, size_bytes: int | None = None) -> Figure:
        """Time a command that must succeed."""
        began = time.monotonic()
        told = self.invoke("executeCommand", command=command)["structuredContent"]
        assert told["exitCode"] == 0, told
        return Figure(what, time.monotonic() - began, size_bytes)

    def python(self, what: str, code: str) -> Figure:
        """Time Python code that must not raise."""
        began = time.monotonic()
        result = self.invoke("executeCode", language="python", code=code)
        assert not result.get("isError"), result
        return Figure(what, time.monotonic() - began)


def _boto3_client(server: servers.Started, service: str) -> Any:
    return cast(Any, boto3).client(
        service,
        endpoint_url=server.variables["AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"],
        region_name=server.variables["AWS_REGION"],
        aws_access_key_id=server.variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=server.variables["AWS_SECRET_ACCESS_KEY"],
        config=Config(read_timeout=900),
    )


def _copies(session: Session, size_bytes: int) -> Generator[Figure]:
    name = f"{size_bytes // GB} GB"
    # Not a hole: rclone would find zeros easy, and so would nobody else.
    session.sh(
        "", f"openssl enc -aes-128-ctr -nosalt -pass pass:x -in /dev/zero 2>/dev/null | head -c {size_bytes} > big"
    )
    yield session.sh(
        f"{name} out of the sandbox (aws s3 cp)", "aws s3 cp big s3://bench/mine/big --no-progress", size_bytes
    )
    session.sh("", "sha256sum < big > sum && rm big")
    yield session.sh(
        f"{name} into the sandbox (aws s3 cp)", "aws s3 cp s3://bench/mine/big big --no-progress", size_bytes
    )
    session.sh("", "sha256sum < big | cmp - sum && rm big && aws s3 rm s3://bench/mine/big")


def _story(session: Session) -> Generator[Figure]:
    session.python("", _CSV)
    session.sh("", "aws s3 cp table.csv s3://bench/mine/table.csv --no-progress && rm table.csv")
    yield session.sh("1 GB of CSV into the sandbox", "aws s3 cp s3://bench/mine/table.csv back.csv --no-progress", GB)
    for library, code in _AGGREGATIONS.items():
        yield session.python(f"aggregated by {library}", code)
    plot = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.savefig('report.png')\nplt.close()"
    yield session.python("a plot of it", plot)
    yield session.sh("the report back", "aws s3 cp report.png s3://bench/mine/report.png --no-progress")
    denied = session.invoke("executeCommand", command="aws s3 cp report.png s3://bench/theirs/report.png")
    assert "AccessDenied" in denied["structuredContent"]["stderr"], denied


@contextmanager
def _role(server: servers.Started) -> Generator[None]:
    """A role for one prefix, in force while this is held."""
    (server.data / "s3" / "buckets" / "bench").mkdir(parents=True)
    objects = {
        "Effect": "Allow",
        "Action": ["s3:*Object", "s3:*MultipartUpload*"],
        "Resource": "arn:aws:s3:::bench/mine/*",
    }
    trusted = {"Service": "bedrock-agentcore.amazonaws.com"}
    role = {
        "arn": _ROLE,
        "policies": [{"Version": "2012-10-17", "Statement": [objects]}],
        "trust": {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": trusted, "Action": "sts:AssumeRole"}],
        },
        "credentials": {"embedded": True},
    }
    file = server.data / "roles.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps({"roles": [role]}))
    # The server looks for a change once a second.
    time.sleep(1.5)
    yield


def _peak_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def _rclone(server: int) -> int:
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    (found,) = [int(pid) for pid in children if b"rclone" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


@app.default
def run(*, large: Annotated[bool, Parameter(help="also 5 GB")] = True) -> None:
    """Do it all once, and print how long each took and the most memory that the server and its S3 held."""
    console = Console(highlight=False, soft_wrap=True)
    settings = {"FUMEHOOD_POOL_MIN": "0", "FUMEHOOD_SANDBOX_DISK_BYTES": "16G"}
    with servers.started(settings=settings) as server, _role(server):
        before = _peak_mib(server.pid)
        session = Session(server)
        console.print(str(machine.describe()))
        for figures in (_copies(session, GB), _story(session), *([_copies(session, 5 * GB)] if large else [])):
            for figure in figures:
                console.print(str(figure))
        after = _peak_mib(server.pid)
        console.print(f"server's memory, at most: {after:.0f} MiB, {after - before:.0f} more than with no session")
        console.print(f"its S3's memory, at most: {_peak_mib(_rclone(server.pid)):.0f} MiB")


if __name__ == "__main__":
    app()
