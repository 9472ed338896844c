"""File systems for tests: folders of this machine, and the file that declares them."""

import json
import os
from pathlib import Path
from typing import Any

ACCOUNT = "000000000000"


def access_point(number: int) -> str:
    """The ARN of an EFS access point."""
    return f"arn:aws:elasticfilesystem:us-east-1:{ACCOUNT}:access-point/fsap-{number:017x}"


def file_system(number: int) -> str:
    """The ARN of the file system that the access point is of."""
    return f"arn:aws:elasticfilesystem:us-east-1:{ACCOUNT}:file-system/fs-{number:017x}"


def efs(number: int, mount_path: str) -> dict[str, Any]:
    """The member of a request that mounts it."""
    return {
        "efsConfiguration": {
            "accessPointArn": access_point(number),
            "fileSystemArn": file_system(number),
            "mountPath": mount_path,
        }
    }


def declared(number: int, folder: Path, **changes: Any) -> dict[str, Any]:
    """One file system as the operator declares it: written to by the account's sessions, all at once."""
    return {
        "accessPointArn": access_point(number),
        "fileSystemArn": file_system(number),
        "folder": str(folder),
        "access": "read-write",
        "accounts": [ACCOUNT],
        "shared": True,
    } | changes


def declare(path: Path, *file_systems: dict[str, Any]) -> Path:
    """Write the file, whole at any moment."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"fileSystems": file_systems}))
    new.chmod(0o600)
    new.rename(path)
    return path


def make_folder(path: Path) -> Path:
    """A folder that sessions may write to."""
    path.mkdir()
    os.chown(path, 0, 1000)
    path.chmod(0o770)
    return path
