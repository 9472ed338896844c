"""What control groups tell, from trees of files as Linux 6.1 has them: v1, and v2, which the tests' machines lack."""

from pathlib import Path

import pytest

from fumehood.sandbox import limits
from fumehood.sandbox.contract import EndReason

MIB = 1024 * 1024
_GROUP = "fumehood/0123456789ab/01J0000000000000000000000A"
_V1 = {
    "memory/{}/memory.usage_in_bytes": "104857600\n",
    "memory/{}/memory.max_usage_in_bytes": "209715200\n",
    "memory/{}/memory.limit_in_bytes": "536870912\n",
    "memory/{}/memory.stat": "cache 9\nrss 7\ntotal_inactive_file 10485760\ntotal_active_file 20971520\n",
    "cpuacct/{}/cpuacct.usage": "2500000000\n",
}
_V2 = {
    "cgroup.controllers": "cpuset cpu io memory hugetlb pids\n",
    "{}/memory.current": "104857600\n",
    "{}/memory.peak": "209715200\n",
    "{}/memory.max": "536870912\n",
    "{}/memory.stat": "anon 7\nfile 31457280\ninactive_file 10485760\nactive_file 20971520\n",
    "{}/cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
}
_LIMIT = {"v1": f"memory/{_GROUP}/memory.limit_in_bytes", "v2": f"{_GROUP}/memory.max"}


@pytest.fixture(params=["v1", "v2"])
def version(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The version of a tree with one sandbox's group in it."""
    for name, content in {"v1": _V1, "v2": _V2}[request.param].items():
        path = tmp_path / name.format(_GROUP)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.setattr(limits, "_CGROUPS", tmp_path)
    return request.param


@pytest.mark.usefixtures("version")
def test_usage_is_processor_time_memory_and_its_peak() -> None:
    usage = limits.read_usage(_GROUP)
    assert (usage.cpu_seconds, usage.memory_bytes, usage.memory_peak_bytes) == (2.5, 100 * MIB, 200 * MIB)


@pytest.mark.usefixtures("version")
def test_the_working_set_is_without_cached_files() -> None:
    assert limits.working_set(_GROUP) == 70 * MIB


def test_headroom_is_half_of_the_memory_and_half_a_gibibyte_at_most(version: str, tmp_path: Path) -> None:
    limits.add_headroom(_GROUP, 1024 * MIB)
    assert int((tmp_path / _LIMIT[version]).read_text()) == 1536 * MIB
    limits.add_headroom(_GROUP, 8192 * MIB)
    assert int((tmp_path / _LIMIT[version]).read_text()) == 8704 * MIB


def test_the_parent_s_limit_is_set_and_lifted(version: str, tmp_path: Path) -> None:
    parent = "fumehood/0123456789ab"
    path = tmp_path / _LIMIT[version].replace(_GROUP, parent)
    limits.make_parent(parent, 4096 * MIB)
    assert path.read_text() == str(4096 * MIB)
    limits.make_parent(parent, None)
    assert path.read_text() == {"v1": "-1", "v2": "max"}[version]


_REPORTS = {
    "out of memory, v1": ("status=137\noom_kill_disable 0\nunder_oom 0\noom_kill 1\n", EndReason.OUT_OF_MEMORY),
    "out of memory, v2": ("status=137\nlow 0\nhigh 0\nmax 12\noom 1\noom_kill 1\n", EndReason.OUT_OF_MEMORY),
    "at its deadline": ("status=75\noom_kill 0\n", EndReason.EXPIRED),
    "by itself": ("status=1\noom_kill 0\n", EndReason.CRASHED),
    "nothing known": ("", EndReason.CRASHED),
}


@pytest.mark.parametrize(("report", "reason"), _REPORTS.values(), ids=_REPORTS)
def test_a_keeper_s_report_tells_why_a_sandbox_ended(report: str, reason: EndReason) -> None:
    assert limits.end_from_report(report, None).reason is reason


def test_a_keeper_s_report_tells_what_was_used_whichever_version_wrote_it() -> None:
    v1 = limits.end_from_report("status=0\nmemory_peak_bytes 7\ncpu_nanoseconds 1500000000\nlog:\n", EndReason.STOPPED)
    v2 = limits.end_from_report("status=0\nmemory_peak_bytes 7\nusage_usec 1500000\nlog:\n", EndReason.STOPPED)
    assert v1 == v2
    assert (v1.usage.cpu_seconds, v1.usage.memory_peak_bytes, v1.reason) == (1.5, 7, EndReason.STOPPED)


def test_what_a_sandbox_logged_cannot_forge_its_end() -> None:
    assert limits.end_from_report("status=0\nlog:\noom_kill 1\n", EndReason.STOPPED).reason is EndReason.STOPPED
