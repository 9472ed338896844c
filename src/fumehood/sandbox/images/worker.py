"""The heavy part of storing and verifying, in a process of its own: it would keep the interpreter from the server.

    python -m fumehood.sandbox.images.worker keep RAW IMAGE INDEX
    python -m fumehood.sandbox.images.worker read IMAGE NAME:SIZE...

`keep` writes a difference for each file of the checkpoint RAW into the folder IMAGE, against the file of that name in
IMAGE/base if there is one; `read` reads differences back. The SHA-256 of each whole file is printed, as JSON.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from fumehood.sandbox.images.pages import DamagedError, read_digest, write_difference

BASE = "base"
# Calls that people wait for come first.
_NICE = 5


def _keep(raw: str, image: str, index: str) -> dict[str, str]:
    return {
        path.name: write_difference(path, _base(Path(image), path.name), Path(index), Path(image, path.name))
        for path in Path(raw).iterdir()
    }


def _read(image: str, *files: str) -> dict[str, str]:
    sizes = dict(file.rsplit(":", 1) for file in files)
    return {name: read_digest(Path(image, name), _base(Path(image), name), int(size)) for name, size in sizes.items()}


def _base(image: Path, name: str) -> Path | None:
    base = image / BASE / name
    return base if base.exists() else None


def main(operation: str, *arguments: str) -> None:
    """Do one operation."""
    os.nice(_NICE)
    operations: dict[str, Callable[..., dict[str, str]]] = {"keep": _keep, "read": _read}
    try:
        print(json.dumps(operations[operation](*arguments)))
    except (OSError, DamagedError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
