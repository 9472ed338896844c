"""Servers with execution roles, and sessions that have them."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.service import Service, Session, make_data_folder

ACCOUNT = "000000000000"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "bedrock-agentcore.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}
OBJECT_ACTIONS = (
    "s3:GetObject",
    "s3:PutObject",
    "s3:DeleteObject",
    "s3:AbortMultipartUpload",
    "s3:ListMultipartUploadParts",
)


def role_arn(name: str) -> str:
    """The ARN of a role of the server's own account."""
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def prefix_policy(bucket: str, prefix: str) -> dict[str, Any]:
    """All about the objects below a prefix, and nothing else."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": list(OBJECT_ACTIONS), "Resource": f"arn:aws:s3:::{bucket}/{prefix}/*"},
            {
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": f"arn:aws:s3:::{bucket}",
                "Condition": {"StringLike": {"s3:prefix": [f"{prefix}/*"]}},
            },
        ],
    }


def write_roles(data: Path, policies: Mapping[str, Sequence[dict[str, Any]]], **more: Any) -> None:
    """Have these roles, by name, in a data folder; all use the embedded S3, unless `credentials` says otherwise."""
    roles = [
        {"arn": role_arn(name), "policies": [*documents], "trust": TRUST, "credentials": {"embedded": True}} | more
        for name, documents in policies.items()
    ]
    file = data / "roles.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps({"roles": roles}))


def make_buckets(data: Path, names: Sequence[str]) -> Path:
    """Have buckets in the embedded S3 of a server that does not run yet; the folder that they are in."""
    folder = data / "s3" / "buckets"
    for name in names:
        (folder / name).mkdir(parents=True)
    return folder


@contextlib.contextmanager
def server_with_roles(
    data: Path,
    policies: Mapping[str, Sequence[dict[str, Any]]],
    buckets: Sequence[str] = ("work", "secret"),
    settings: Mapping[str, str] | None = None,
) -> Iterator[Service]:
    """A server of the template `standard` with these roles, stopped at the end."""
    make_data_folder(data)
    write_roles(data, policies)
    make_buckets(data, buckets)
    running = Service(data, {"FUMEHOOD_TEMPLATE": "standard", "FUMEHOOD_POOL_MIN": "0", **(settings or {})})
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def session_with_role(server: Service, role: str | None, interpreter: str = "") -> Session:
    """A session of a new interpreter that has the role; of an interpreter that has none, for None."""
    control = server.client("bedrock-agentcore-control")
    more = {} if role is None else {"executionRoleArn": role_arn(role)}
    made = control.create_code_interpreter(
        name=interpreter or f"has_{role}", networkConfiguration={"networkMode": "SANDBOX"}, **more
    )
    return Session(server.client(read_timeout=900), made["codeInterpreterId"], sessionTimeoutSeconds=3600)


def stdout(session: Session, command: str) -> str:
    """What a shell command says; it must succeed."""
    content = session.sh(command)["structuredContent"]
    assert content["exitCode"] == 0, content
    return content["stdout"]


def printed(session: Session, code: str) -> str:
    """What Python code prints; it must not raise."""
    result = session.run(code)
    assert not result["isError"], result
    return result["structuredContent"]["stdout"]
