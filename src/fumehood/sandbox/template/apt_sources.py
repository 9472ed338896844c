"""This machine's own apt source entries, and entries derived from them.

Templates come from the same Debian mirror as the machine itself, and so does the backport of runsc: nothing here knows
an address. Standard library only, because set-up runs this file before anything is installed:

    python3 apt_sources.py CODENAME SUITE        prints the machine's entry for CODENAME with its suite changed to SUITE

Both formats of sources.list(5) are read, one-line and deb822; deb822 is written.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

_ONE_LINE = re.compile(
    r"(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)"
)
# The one-line format's names of the deb822 fields that decide what is fetched and which signature is believed.
_OPTION_FIELDS = {
    "arch": "Architectures",
    "signed-by": "Signed-By",
    "trusted": "Trusted",
    "check-valid-until": "Check-Valid-Until",
    "check-date": "Check-Date",
}


@dataclass(frozen=True)
class AptSource:
    """One entry: every suite at every URI. `fields` are the others, by deb822 name, values as written."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    fields: tuple[tuple[str, str], ...] = ()

    def deb822(self) -> str:
        """The entry as a deb822 paragraph, newline at its end."""
        lines = ["Types: deb", f"URIs: {' '.join(self.uris)}", f"Suites: {' '.join(self.suites)}"]
        if self.components:
            lines.append(f"Components: {' '.join(self.components)}")
        lines += [f"{name}: {value}" for name, value in self.fields]
        return "\n".join(lines) + "\n"


def read(etc_apt: Path) -> list[AptSource]:
    """The enabled binary-package entries of an /etc/apt folder, in apt's order of reading."""
    parts = etc_apt / "sources.list.d"
    files = sorted(parts.iterdir()) if parts.is_dir() else []
    main = etc_apt / "sources.list"
    sources: list[AptSource] = []
    for file in [main, *files] if main.is_file() else files:
        if file.suffix == ".sources":
            sources += parse_deb822(file.read_text())
        elif file.suffix == ".list":
            sources += parse_one_line(file.read_text())
    return sources


def parse_one_line(text: str) -> list[AptSource]:
    """The binary-package entries of a file in the one-line format."""
    sources: list[AptSource] = []
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.split("#", 1)[0].strip())
        if match is None or match["type"] != "deb":
            continue
        options = (option.partition("=") for option in (match["options"] or "").split())
        fields = tuple(
            (_OPTION_FIELDS[name.lower()], value.replace(",", " "))
            for name, _, value in options
            if name.lower() in _OPTION_FIELDS
        )
        sources.append(AptSource((match["uri"],), (match["suite"],), tuple(match["components"].split()), fields))
    return sources


def parse_deb822(text: str) -> list[AptSource]:
    """The enabled binary-package entries of a file in the deb822 format."""
    sources: list[AptSource] = []
    for fields in _paragraphs(text):
        if "deb" not in fields.pop("types", "").split() or fields.pop("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        uris, suites, components = (tuple(fields.pop(name, "").split()) for name in ("uris", "suites", "components"))
        rest = tuple((name.title(), value) for name, value in fields.items())
        sources.append(AptSource(uris, suites, components, rest))
    return sources


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The fields of each paragraph, names in lower case. A continued value keeps its line breaks: it may be a key."""
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()


def of_suites(sources: Iterable[AptSource], suites: Sequence[str]) -> list[AptSource]:
    """The entries that serve any of `suites`, cut to those."""
    kept = (replace(source, suites=tuple(s for s in source.suites if s in suites)) for source in sources)
    return [source for source in kept if source.suites]


def for_codename(sources: Iterable[AptSource], codename: str) -> list[AptSource]:
    """The entries a Debian of this codename is made from: the release, its updates and its security fixes.

    Raises LookupError, naming the suites there are, if none serves the release itself.
    """
    every = list(sources)
    chosen = of_suites(every, (codename, f"{codename}-updates", f"{codename}-security"))
    if not of_suites(chosen, (codename,)):
        found = sorted({suite for source in every for suite in source.suites})
        raise LookupError(f"no apt source serves the suite {codename}; there is {', '.join(found) or 'none at all'}")
    return chosen


def with_suite(sources: Iterable[AptSource], codename: str, suite: str) -> AptSource:
    """The first entry for `codename`, its suite changed to `suite`. Raises LookupError as for_codename does."""
    return replace(of_suites(for_codename(sources, codename), (codename,))[0], suites=(suite,))


def main(arguments: Sequence[str]) -> int:
    """Print one derived entry: CODENAME SUITE [folder, /etc/apt unless given]. Returns the exit code."""
    if len(arguments) not in (2, 3):
        print("usage: apt_sources.py CODENAME SUITE [ETC_APT]", file=sys.stderr)
        return 2
    codename, suite, *folder = arguments
    try:
        entry = with_suite(read(Path(folder[0] if folder else "/etc/apt")), codename, suite)
    except LookupError as error:
        print(f"apt_sources.py: {error}", file=sys.stderr)
        return 1
    print(entry.deb822(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
