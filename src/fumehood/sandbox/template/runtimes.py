"""Which of the languages' runtimes a template has, seen from the host."""

from collections import deque
from pathlib import Path

PATHS = {"python": "/usr/bin/python3", "deno": "/usr/local/bin/deno", "nodejs": "/usr/local/bin/node"}
"""Where the guest starts each from; a test holds this to the guest's own table."""
_LINKS_MAX = 40


def runtimes_in(root: Path) -> tuple[str, ...]:
    """The runtimes that the root file system has."""
    return tuple(name for name, path in PATHS.items() if _has(root, path))


def _has(root: Path, path: str) -> bool:
    try:
        return _is_file_inside(root, path)
    except OSError:
        # A link that says more than a path can be.
        return False


def _is_file_inside(root: Path, path: str) -> bool:
    """Whether `path` leads to a file when `root` is the root: links in an imported image may point anywhere."""
    here: list[str] = []
    ahead = deque(path.split("/"))
    links = 0
    while ahead:
        name = ahead.popleft()
        if name in ("", "."):
            continue
        if name == "..":
            here = here[:-1]
            continue
        found = root.joinpath(*here, name)
        if not found.is_symlink():
            here.append(name)
            continue
        links += 1
        if links > _LINKS_MAX:
            return False
        target = str(found.readlink())
        here = [] if target.startswith("/") else here
        ahead.extendleft(reversed(target.split("/")))
    return root.joinpath(*here).is_file()
