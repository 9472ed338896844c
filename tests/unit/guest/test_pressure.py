"""Which processes are to end when memory runs out."""

import asyncio
import os

import pytest

from fumehood.guest.pressure import bytes_taken_soon, choose_victim, seconds_to_next_look, users_processes
from fumehood.guest.process_table import Entry, is_privileged
from fumehood.guest.processes import Process

KERNEL, COMMAND = 10, 20


def _entry(parent: int, session: int, mebibytes: int) -> Entry:
    return Entry(parent, session, mebibytes * 1024 * 1024)


@pytest.fixture
async def roots() -> dict[int, Process]:
    return {KERNEL: Process(KERNEL), COMMAND: Process(COMMAND)}


async def test_what_uses_most_with_all_it_started_ends_together(roots: dict[int, Process]) -> None:
    table = {
        KERNEL: _entry(1, KERNEL, 300),
        COMMAND: _entry(2, COMMAND, 4),
        21: _entry(COMMAND, COMMAND, 200),
        22: _entry(21, 22, 210),
    }
    victim = choose_victim(table, roots, {KERNEL}, set())
    assert victim is not None
    assert victim.root is roots[COMMAND]
    assert victim.pids == (22, 21, COMMAND), "the one that uses most goes first"
    assert not victim.spares_root


async def test_a_kernel_in_no_call_is_ended_only_after_all_others(roots: dict[int, Process]) -> None:
    table = {KERNEL: _entry(1, KERNEL, 900), COMMAND: _entry(2, COMMAND, 4)}
    victim = choose_victim(table, roots, {KERNEL}, {KERNEL})
    assert victim is not None
    assert victim.root is roots[COMMAND]
    del table[COMMAND]
    victim = choose_victim(table, roots, {KERNEL}, {KERNEL})
    assert victim is not None
    assert victim.root is roots[KERNEL]


async def test_a_kernel_in_no_call_is_ended_before_those_whose_end_does_not_help(roots: dict[int, Process]) -> None:
    table = {KERNEL: _entry(1, KERNEL, 300), COMMAND: _entry(2, COMMAND, 4), 30: _entry(1, 31, 90)}
    for lacking_mebibytes, root in ((100, roots[KERNEL]), (50, None)):
        victim = choose_victim(table, roots, {KERNEL}, {KERNEL}, lacking_mebibytes * 1024 * 1024)
        assert victim is not None
        assert victim.root is root


async def test_a_kernel_whose_children_use_most_is_spared(roots: dict[int, Process]) -> None:
    table = {KERNEL: _entry(1, KERNEL, 100), 11: _entry(KERNEL, KERNEL, 90), 12: _entry(11, 12, 90)}
    victim = choose_victim(table, roots, {KERNEL}, set())
    assert victim is not None
    assert victim.spares_root
    assert set(victim.pids) == {11, 12}


async def test_what_an_ended_command_left_behind_is_a_group_of_its_own(roots: dict[int, Process]) -> None:
    table = {KERNEL: _entry(1, KERNEL, 100), 30: _entry(1, 31, 90), 32: _entry(1, 31, 90)}
    victim = choose_victim(table, roots, {KERNEL}, set())
    assert victim is not None
    assert victim.root is None
    assert set(victim.pids) == {30, 32}


async def test_a_child_that_is_being_born_is_nobody_s_to_end_and_whatever_code_makes_is(
    roots: dict[int, Process],
) -> None:
    agent, nursery, spare, newborn, orphan, given_away = 1, 2, 3, 40, 50, 60
    table = {
        agent: _entry(0, 1, 20),
        nursery: _entry(agent, 2, 10),
        spare: _entry(nursery, 3, 10),
        # Forked, and not told of: first in its parent's session, then in its own.
        newborn: _entry(nursery, 2, 500),
        newborn + 1: _entry(nursery, newborn + 1, 500),
        KERNEL: _entry(agent, KERNEL, 30),
        COMMAND: _entry(nursery, COMMAND, 4),
        orphan: _entry(agent, 49, 5),
        # As clone(2) with CLONE_PARENT in a command makes one, which then has a session of its own.
        given_away: _entry(nursery, given_away, 6),
    }
    privileged = {agent, nursery, spare, newborn, newborn + 1}
    users = users_processes(table, roots, {agent, nursery, spare}, privileged.__contains__)
    assert users.keys() == {KERNEL, COMMAND, orphan, given_away}
    victim = choose_victim(users, roots, {KERNEL}, {KERNEL})
    assert victim is not None
    assert victim.pids == (given_away,)


async def test_no_process_of_another_user_has_the_agent_s_privileges() -> None:
    other = await asyncio.create_subprocess_exec("sleep", "60", user=1000)
    try:
        assert is_privileged(os.getpid())
        assert not is_privileged(other.pid)
        assert not is_privileged(2**22 + 1)
    finally:
        other.kill()
        await other.wait()


async def test_there_may_be_nobody(roots: dict[int, Process]) -> None:
    assert choose_victim({}, roots, {KERNEL}, set()) is None


@pytest.mark.parametrize("left_mebibytes", [-100, 0, 1, 100, 1000, 10_000])
def test_an_idle_sandbox_is_seldom_woken_and_a_busy_one_looks_the_oftener_the_less_there_is(
    left_mebibytes: int,
) -> None:
    left_bytes = left_mebibytes * 1024 * 1024
    assert seconds_to_next_look(left_bytes, busy=False) >= 0.1
    assert seconds_to_next_look(left_bytes, busy=True) <= seconds_to_next_look(left_bytes, busy=False)
    assert seconds_to_next_look(left_bytes, busy=True) <= seconds_to_next_look(left_bytes + 1024**3, busy=True) <= 0.25


def test_a_look_that_came_late_expects_the_next_to_be_later() -> None:
    mib = 1024 * 1024
    in_time = bytes_taken_soon(10 * mib, seconds=0.25, late_seconds=0.0)
    assert in_time == pytest.approx(4 * mib)
    late = bytes_taken_soon(100 * mib, seconds=2.5, late_seconds=2.4)
    assert late == pytest.approx(196 * mib)
    assert bytes_taken_soon(10 * mib, seconds=0.25, late_seconds=-0.1) == in_time
    assert bytes_taken_soon(-100 * mib, seconds=0.25, late_seconds=3.0) == 0
    # Asleep for an hour, in which nothing was taken: no reason to end anybody.
    assert bytes_taken_soon(mib, seconds=3600.0, late_seconds=3599.0) < 3 * mib
