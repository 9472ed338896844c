"""A root file system from the machine's own Debian packages, by mmdebstrap."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from fumehood.sandbox.template import apt_sources
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.workplace import Workplace

_DEADLINE_SECONDS = 1_800
_NEWLY_INSTALLED = re.compile(r"\d+ upgraded, (\d+) newly installed")
_SIZE = r"(?P<number>[\d.,]+) (?P<unit>B|kB|MB|GB)"
# What is in apt's cache is not fetched: then the first size is smaller than the second.
_NEED_TO_GET = re.compile(rf"Need to get {_SIZE}(/\S+ \S+)? of archives")
_FETCHED = re.compile(rf"Get:\d+ \S+ \S+ \S+ (?P<package>\S+) .*\[{_SIZE}\]")
_UNITS = {"B": 1, "kB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}
# Documentation and translations: nobody reads them in a sandbox, and they are a quarter of the size.
_LEFT_OUT = ("/usr/share/man/*", "/usr/share/info/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/i18n/*")
_KEPT = ("/usr/share/doc/*/copyright",)


async def bootstrap(
    workplace: Workplace,
    root: Path,
    *,
    codename: str,
    packages: Sequence[str],
    variant: Literal["essential", "extract"],
) -> None:
    """Make `root` from `packages` and all they need.

    `essential` installs them on top of Debian's essential packages; `extract` only unpacks them and runs nothing of
    theirs. Raises TemplateError if the machine has no fitting apt source or mmdebstrap fails.
    """
    try:
        sources = apt_sources.for_codename(apt_sources.read(Path("/etc/apt")), codename)
    except LookupError as error:
        raise TemplateError(str(error)) from None
    listing = workplace.folder / "debian.sources"
    listing.write_text("\n".join(source.deb822() for source in sources))
    options = [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
    options += [f"--dpkgopt=path-include={path}" for path in _KEPT]
    acquire = await _acquire_options(workplace)
    try:
        await workplace.run(
            [
                *("mmdebstrap", "--mode=root", "--format=directory", "--verbose", f"--variant={variant}"),
                *(f"--include={','.join(packages)}", f"--aptopt={acquire}", *options),
                *(codename, str(root), str(listing)),
            ],
            deadline_seconds=_DEADLINE_SECONDS,
            on_line=_Reader(workplace).read,
            network=True,
        )
    finally:
        listing.unlink()
        acquire.unlink()


async def _acquire_options(workplace: Workplace) -> Path:
    """How the machine's apt fetches (proxy, certificates, checks of dates), as a file: mmdebstrap knows none of it."""
    lines: list[str] = []
    await workplace.run(["apt-config", "dump", "Acquire"], deadline_seconds=60, on_line=lines.append, contained=False)
    file = workplace.folder / "acquire.conf"
    file.write_text("\n".join(line for line in lines if line.startswith("Acquire::")) + "\n")
    return file


class _Reader:
    """Tells how far mmdebstrap is from what apt and dpkg print: each package is fetched, then unpacked."""

    def __init__(self, workplace: Workplace) -> None:
        self._progress = workplace.progress
        self._total = 0
        self._done = 0
        self._bytes = 0
        self._bytes_total = 0

    def read(self, line: str) -> None:
        if match := _NEWLY_INSTALLED.match(line):
            self._total += 2 * int(match[1])
        elif match := _NEED_TO_GET.match(line):
            self._bytes_total += _bytes(match)
        elif self._total and (match := _FETCHED.match(line)):
            self._bytes += _bytes(match)
            sizes = f"{self._bytes / 1_000_000:.1f} of {self._bytes_total / 1_000_000:.1f} MB"
            self._step(f"Fetching {match['package']}, {sizes}")
        elif line.startswith("Unpacking "):
            self._step(line.split(" (")[0])

    def _step(self, detail: str) -> None:
        self._done += 1
        self._progress.advance(min(self._done, self._total), self._total, detail)


def _bytes(match: re.Match[str]) -> int:
    """A size as apt writes it."""
    return int(float(match["number"].replace(",", "")) * _UNITS[match["unit"]])
