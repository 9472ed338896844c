"""Brings files into a template that is being built, and makes folders in it.

A script of its own: it runs in a gVisor sandbox whose root is that template, with the guest's Python, so that links
lead nowhere but into it. What it makes belongs to root.

    folder PATH               make a folder, and those above it
    copy TARGET SOURCE...     copy each source: of a folder what is in it, of a file the file
"""

import shutil
import sys
from pathlib import Path


def copy(target: str, sources: list[Path]) -> None:
    """Copy `sources`; the target is a folder if it ends in a slash, is one, or a source is one."""
    into = Path(target)
    is_folder = target.endswith("/") or into.is_dir() or any(source.is_dir() for source in sources)
    (into if is_folder else into.parent).mkdir(parents=True, exist_ok=True)
    for source in sources:
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, into, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, into / source.name if is_folder else into, follow_symlinks=False)


if __name__ == "__main__":
    command, path, *rest = sys.argv[1:]
    try:
        if command == "copy":
            copy(path, [Path(source) for source in rest])
        else:
            Path(path).mkdir(parents=True, exist_ok=True)
    except (OSError, shutil.Error) as error:
        raise SystemExit(str(error)) from None
