"""`fumehood bench`, as a user types it: against the server that runs, and with none running."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.service import COMMAND, Service, free_port, make_data_folder

_SECONDS = 600
_DEV_ONLY = ("boto3", "jupyter_client", "psutil")


def _bench(environment: Mapping[str, str], output: Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    command = [str(COMMAND), "bench", "--quick", "--count", "3", "--output", str(output)]
    ran = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran, json.loads(output.read_text())


def _assert_all_measured(found: dict[str, Any]) -> None:
    samples = found["samples"]
    for order in ("sequential", "staggered", "burst"):
        assert len(samples[order]) == len(samples[f"{order}.stop"]) == 3, order
    for measure in ("round_trip", "round_trip.signed_before", "floor.round_trip", "numpy"):
        assert samples[measure], measure
    for measure in ("write", "read", "put", "get"):
        assert samples[measure], measure
    assert all(isinstance(took, int) for taken in samples.values() for _, took in taken)
    assert found["idle_bytes"] > 0
    # Each clock is either taken or the server has said that it has no such thing.
    for measure in ("hit.start", "miss.pandas", "wake"):
        assert (measure in samples) != (measure in found["not_available"]), measure
    assert all("404" in reason for reason in found["not_available"].values())


def test_the_server_that_runs_is_measured_and_lives_on(server: Service, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "FUMEHOOD_DATA": str(server.data)}

    ran, found = _bench(environment, tmp_path / "samples.json")

    _assert_all_measured(found)
    assert f"server at {server.url}, sessions" in ran.stdout
    assert "| burst: all at once | 3/3 |" in ran.stdout
    assert found["idle_is_fresh"] is False
    assert server.process.poll() is None


def test_where_none_runs_one_is_started_on_the_data_folder_and_stopped_again(tmp_path: Path) -> None:
    data, port = make_data_folder(tmp_path / "data"), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "FUMEHOOD_DATA": str(data),
        "FUMEHOOD_PORT": str(port),
        "FUMEHOOD_TEMPLATE": "base",
    }

    ran, found = _bench(environment, tmp_path / "samples.json")

    _assert_all_measured(found)
    assert f"server at http://127.0.0.1:{port}, started for this run" in ran.stdout
    assert found["idle_is_fresh"] is True
    assert (data / "bench.log").read_text().endswith("stopped\n")


def test_a_server_that_cannot_start_is_told_with_its_reason(tmp_path: Path) -> None:
    data = make_data_folder(tmp_path / "data")
    environment = {"PATH": os.environ["PATH"], "FUMEHOOD_DATA": str(data), "FUMEHOOD_RUNSC": "/nowhere/runsc"}

    ran = subprocess.run(
        [str(COMMAND), "bench", "--quick"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert ran.returncode == 1
    assert "There is no server to measure" in ran.stderr
    assert "gVisor's runsc cannot be run" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_nothing_of_the_dev_group_is_needed() -> None:
    blocked = "; ".join(f"sys.modules[{name!r}] = None" for name in _DEV_ONLY)
    code = f"import sys; {blocked}; import fumehood.cli.bench.command, fumehood.cli.bench.stub"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
