"""What user code gets of a template's variables, whatever the template's file says."""

from pathlib import Path

import pytest

from fumehood.guest.user import template_environment


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"LEVEL=3\nTEXT=a b=c\n\n", {"LEVEL": "3", "TEXT": "a b=c"}),
        (b"PATH=/srv/bin", {"PATH": "/home/sandbox/.local/bin:/srv/bin"}),
        (b"HOME=/\nUSER=root\nLOGNAME=root\nSHELL=/x\nTERM=x\n", {}),
        (b"no variable\n=x\n1A=x\na-b=x\nA\0B=x\nC=\0\n", {}),
        (b"\xff=x\nA=\xff\n", {"A": "\ufffd"}),
    ],
)
def test_the_lines_that_are_variables_count(tmp_path: Path, text: bytes, found: dict[str, str]) -> None:
    (tmp_path / "environment").write_bytes(text)
    assert template_environment(tmp_path / "environment") == found


def test_a_file_without_end_is_read_in_part(tmp_path: Path) -> None:
    (tmp_path / "environment").write_bytes(b"A=1\n" + b"x" * 1_000_000)
    assert template_environment(tmp_path / "environment") == {"A": "1"}


@pytest.mark.parametrize("what", ["folder", "nothing"])
def test_what_is_no_file_has_no_variables(tmp_path: Path, what: str) -> None:
    assert template_environment(tmp_path if what == "folder" else tmp_path / "missing") == {}
