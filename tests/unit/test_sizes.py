"""Sizes that tags choose: only what is one, and never more than the operator allows."""

import pytest

from fumehood.errors import InvalidRequestError
from fumehood.settings import GIB, MIB, Settings
from fumehood.sizes import SIZE_TAGS, allowed_sizes, chosen_sizes

_SETTINGS = Settings(
    largest_sandbox_cpus=4,
    largest_sandbox_memory_bytes=16 * GIB,
    largest_sandbox_disk_bytes=20 * GIB,
    largest_sandbox_processes=2048,
)


def test_tags_choose_sizes_and_what_they_do_not_choose_is_left_out() -> None:
    tags = {"fumehood:cpus": "4", "fumehood:memory": "512MiB", "fumehood:disk": "20G", "team": "blue"}
    assert chosen_sizes(tags, _SETTINGS) == {"cpus": 4, "memory_bytes": 512 * MIB, "disk_bytes": 20 * GIB}
    assert chosen_sizes({"fumehood:processes": "64"}, _SETTINGS) == {"processes_max": 64}
    assert chosen_sizes({"fumehood:memory": str(GIB)}, _SETTINGS) == {"memory_bytes": GIB}


@pytest.mark.parametrize("tag", sorted(SIZE_TAGS))
@pytest.mark.parametrize(
    "value", ["", "0", "-1", "1.5", "many", "8GB", "\u0664", "1e3", " 4", "99999999999999", "9" * 200, "33K", "9999T"]
)
def test_what_is_no_size_or_too_large_is_refused_with_what_would_be_right(tag: str, value: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        chosen_sizes({tag: value}, _SETTINGS)
    assert [field.name for field in refused.value.fields] == ["tags"]
    assert tag in refused.value.message
    assert "at most" in refused.value.message
    assert len(refused.value.message) < 500


@pytest.mark.parametrize(
    ("tag", "most", "above"),
    [
        ("fumehood:cpus", "2", "3"),
        ("fumehood:memory", "8GiB", "8448MiB"),
        ("fumehood:disk", "10GiB", "11GiB"),
        ("fumehood:processes", "1024", "1056"),
    ],
)
def test_where_the_operator_says_nothing_the_defaults_are_the_most(tag: str, most: str, above: str) -> None:
    assert chosen_sizes({tag: most}, Settings())
    with pytest.raises(InvalidRequestError):
        chosen_sizes({tag: above}, Settings())


def test_what_is_allowed_no_more_becomes_the_most_that_is() -> None:
    assert allowed_sizes({"fumehood:memory": "16GiB", "fumehood:cpus": "1"}, Settings()) == {
        "memory_bytes": 8 * GIB,
        "cpus": 1,
    }
