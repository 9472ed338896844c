"""The key of something built: a digest of what it is made of and how, so that a change of either is another thing."""

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

from fumehood.sandbox.template.errors import TemplateError

_KEY_DIGITS = 16


def digest(ingredients: Mapping[str, object]) -> str:
    """16 hexadecimal digits that change with any ingredient; the order of the ingredients does not matter."""
    text = json.dumps(ingredients, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]


def of_files(files: Iterable[Path], base: Path) -> dict[str, str]:
    """Each file's SHA-256 by its path from `base`: the ingredient that stands for source code."""
    return {str(file.relative_to(base)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(files)}


def codename(os_release: Path = Path("/etc/os-release")) -> str:
    """The codename of this machine's Debian. Raises TemplateError where there is none."""
    for line in os_release.read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "VERSION_CODENAME":
            return value.strip().strip("\"'")
    raise TemplateError(
        f"{os_release} names no VERSION_CODENAME: templates are made of the machine's own Debian release"
    )


def architecture() -> str:
    """The machine's architecture as the kernel calls it: x86_64, aarch64."""
    return platform.machine()
