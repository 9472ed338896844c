"""The machine's own apt entries are read in both formats, and the derived one differs in its suite only."""

import subprocess
import sys
from pathlib import Path

import pytest

from fumehood.sandbox.template import apt_sources
from fumehood.sandbox.template.apt_sources import AptSource

DEB822 = """\
# the mirror
Types: deb
# a comment between fields
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""
ONE_LINE = """\
# the mirror
deb http://mirror.example/debian bookworm main contrib
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/etc/key.gpg] http://mirror.example/debian bookworm-updates main # updates
deb http://mirror.example/debian-security bookworm-security main
#deb http://mirror.example/debian bookworm-backports main
"""


@pytest.fixture
def etc_apt(tmp_path: Path) -> Path:
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def derived(etc_apt: Path) -> str:
    """What set-up writes: the script is run as set-up runs it, by a Python without fumehood."""
    script = Path(apt_sources.__file__)
    command = [sys.executable, "-I", "-S", str(script), "bookworm", "bookworm-backports", str(etc_apt)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def test_the_backports_entry_is_derived_from_a_deb822_file(etc_apt: Path) -> None:
    (etc_apt / "sources.list.d/debian.sources").write_text(DEB822)
    assert derived(etc_apt) == (
        "Types: deb\n"
        "URIs: http://mirror.example/debian\n"
        "Suites: bookworm-backports\n"
        "Components: main contrib\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )


def test_the_backports_entry_is_derived_from_a_one_line_file(etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text(ONE_LINE)
    assert derived(etc_apt) == (
        "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm-backports\nComponents: main contrib\n"
    )


def test_options_of_a_one_line_entry_are_kept(etc_apt: Path) -> None:
    (etc_apt / "sources.list.d/debian.list").write_text(
        "deb [arch=amd64,arm64 signed-by=/etc/key.gpg lang=none] http://mirror.example/debian bookworm main\n"
    )
    assert derived(etc_apt).splitlines()[-2:] == ["Architectures: amd64 arm64", "Signed-By: /etc/key.gpg"]


def test_a_key_within_a_deb822_entry_is_kept_whole() -> None:
    key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQINBGPL0BUBEADmW5NdOOHw\n -----END PGP PUBLIC KEY BLOCK-----"
    text = f"Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\nComponents: main\nSigned-By:\n {key}\n"
    [source] = apt_sources.parse_deb822(text)
    assert apt_sources.parse_deb822(source.deb822()) == [source]
    assert key in source.deb822()


def test_a_template_is_made_from_the_release_its_updates_and_its_security_fixes_only(etc_apt: Path) -> None:
    (etc_apt / "sources.list").write_text(ONE_LINE)
    (etc_apt / "sources.list.d/foreign.list").write_text("deb http://elsewhere.example stable main\n")
    (etc_apt / "sources.list.d/own.sources").write_text(derived(etc_apt))
    suites = [source.suites for source in apt_sources.for_codename(apt_sources.read(etc_apt), "bookworm")]
    assert suites == [("bookworm",), ("bookworm-updates",), ("bookworm-security",)]


@pytest.mark.parametrize(
    "text",
    [
        "Types: deb-src\nURIs: http://m.example\nSuites: bookworm\n",
        "Types: deb\nURIs: http://m.example\nSuites: bookworm\nEnabled: no\n",
    ],
)
def test_entries_that_apt_ignores_are_ignored(text: str) -> None:
    assert apt_sources.parse_deb822(text) == []


def test_files_that_apt_does_not_read_are_not_read(etc_apt: Path) -> None:
    (etc_apt / "sources.list.d/old.list.disabled").write_text(ONE_LINE)
    assert apt_sources.read(etc_apt) == []


def test_a_machine_without_the_release_is_told_which_suites_there_are() -> None:
    sources = [AptSource(("http://mirror.example/debian",), ("trixie", "trixie-updates"), ("main",))]
    with pytest.raises(LookupError, match="no apt source serves the suite bookworm; there is trixie, trixie-updates"):
        apt_sources.for_codename(sources, "bookworm")
