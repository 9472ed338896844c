"""What a soak calls a leak: what there is more of, pools that follow demand left out."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.soaking.resources import Resources, held_without_blanks, leaks

_OF_EACH = {"process": 4, "mount": 1, "group": 9, "loop": 1, "folder": 4, "descriptor": 2}
_MIB = 1024 * 1024


def _look(ready: int, more: dict[str, int] | None = None, **changes: Any) -> Resources:
    """A look at a server with so many ready sandboxes, and `more` than they hold."""
    held = {kind: ready * count for kind, count in _OF_EACH.items()}
    for kind, count in (more or {}).items():
        held[kind] = held.get(kind, 0) + count
    return replace(Resources(150 * _MIB, 24, 15, {k: n for k, n in held.items() if n}, ready, 1, 0), **changes)


@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 4), (8, 0), (0, 8)])
def test_a_pool_that_follows_demand_is_no_leak(before: int, after: int) -> None:
    assert leaks(_OF_EACH, _look(before), _look(after)) == []


@pytest.mark.parametrize("kind", sorted(_OF_EACH))
@pytest.mark.parametrize(("before", "after"), [(2, 2), (3, 4), (8, 2), (0, 8), (1, 0)])
def test_one_thing_of_a_sandbox_left_over_is_a_leak_whatever_the_pool_does(kind: str, before: int, after: int) -> None:
    assert leaks(_OF_EACH, _look(before), _look(after, {kind: 1})) == [f"{kind}: 0 → 1"]


def test_a_thing_that_no_ready_sandbox_holds_is_a_leak() -> None:
    assert leaks(_OF_EACH, _look(2), _look(3, {"link": 1})) == ["link: 0 → 1"]


def test_a_whole_sandbox_that_is_in_no_pool_is_a_leak() -> None:
    found = leaks(_OF_EACH, _look(3), replace(_look(4), ready=3))
    assert found == [f"{kind}: 0 → {count}" for kind, count in sorted(_OF_EACH.items())]


def test_what_was_over_already_is_no_leak_and_more_of_it_is() -> None:
    before = _look(3, {"mount": 2})
    assert leaks(_OF_EACH, before, _look(2, {"mount": 2})) == []
    assert leaks(_OF_EACH, before, _look(2, {"mount": 3})) == ["mount: 2 → 3"]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"descriptors": 25}, ["descriptors: 24 → 25"]),
        ({"threads": 16}, ["threads: 15 → 16"]),
        ({"resident_bytes": 166 * _MIB}, ["memory: 150.0 MiB → 166.0 MiB"]),
        ({"resident_bytes": 164 * _MIB, "descriptors": 20, "threads": 3}, []),
    ],
)
def test_of_the_server_itself_descriptors_and_threads_and_a_tenth_of_memory_are_leaks(
    changes: dict[str, Any], found: list[str]
) -> None:
    assert leaks(_OF_EACH, _look(2), _look(4, **changes)) == found


def test_a_server_without_a_session_tells_what_a_ready_sandbox_holds() -> None:
    assert _look(3).of_each_ready() == _OF_EACH
    assert _look(0).of_each_ready() == {}


@pytest.mark.parametrize("ready", [0, 2])
def test_what_is_held_beside_ready_sandboxes_is_not_taken_for_theirs(ready: int) -> None:
    with pytest.raises(ValueError, match=f"{ready} sandboxes are ready"):
        _look(ready, {"mount": 1}).of_each_ready()


_FOUND = ["process runsc a", "process bash b", "process bash b", "mount /sandboxes/a", "mount /sandboxes/b", "folder b"]


def test_what_the_servers_blanks_hold_is_left_out() -> None:
    assert held_without_blanks(_FOUND, {"/b", " b"}, 2) == {"mount": 1, "process": 1}
    assert held_without_blanks(_FOUND, set(), 0) == {"folder": 1, "mount": 2, "process": 3}


@pytest.mark.parametrize("there", [0, 1, 3])
def test_blanks_that_the_server_does_not_know_are_counted(there: int) -> None:
    assert held_without_blanks(_FOUND, {"/b", " b"}, there) == {"folder": 1, "mount": 2, "process": 3}
