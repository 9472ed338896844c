"""Paths of the file tools, before any is opened; what links and races can do is tried in real sandboxes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.guest.paths import PathError, split_file_path, split_path


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("a", ["a"]),
        ("a/b.txt", ["a", "b.txt"]),
        ("./a//b/.", ["a", "b"]),
        ("", []),
        (".", []),
        ("...", ["..."]),
        ("..a/b..", ["..a", "b.."]),
        ("a b/ü\n", ["a b", "ü\n"]),
        ("a\\..\\b", ["a\\..\\b"]),
    ],
)
def test_a_path_below_the_working_folder_is_split_into_its_components(path: str, parts: list[str]) -> None:
    assert split_path(path) == parts


@pytest.mark.parametrize("path", ["/", "/etc/passwd", "//a", "/home/sandbox/a"])
def test_an_absolute_path_is_refused_as_path_traversal(path: str) -> None:
    with pytest.raises(PathError, match="path traversal: absolute"):
        split_path(path)


@pytest.mark.parametrize("path", ["..", "../a", "a/..", "a/../b", "a/b/../../..", "./..", "a//../b"])
def test_a_path_that_climbs_is_refused_as_path_traversal(path: str) -> None:
    with pytest.raises(PathError, match=r"path traversal: '\.\.'"):
        split_path(path)


@pytest.mark.parametrize("path", ["a\0b", "\0", "../\0"])
def test_a_path_with_a_nul_is_refused(path: str) -> None:
    with pytest.raises(PathError, match="NUL"):
        split_path(path)


@pytest.mark.parametrize("path", ["", ".", "./", "a/", "a/b/"])
def test_a_file_s_path_must_name_a_file(path: str) -> None:
    with pytest.raises(PathError, match="not the name of a file"):
        split_file_path(path)


@given(st.text(alphabet="a./\0\\é", max_size=12))
def test_whatever_is_accepted_goes_down_only(path: str) -> None:
    try:
        parts = split_path(path)
    except PathError as error:
        assert str(error)
        return
    assert not path.startswith("/")
    for part in parts:
        assert part not in ("", ".", "..")
        assert "/" not in part
        assert "\0" not in part
