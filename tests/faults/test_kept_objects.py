"""A server keeps nothing of calls and sessions that are over: counted as objects, by type, round after round."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

from tests.faults import count_objects
from tests.service import free_port, make_data_folder

_CHECKOUT = Path(__file__).parents[2]
_RUN_SECONDS = 900


def _counted(data: Path) -> list[dict[str, int]]:
    environment = {
        "PATH": os.environ["PATH"],
        "FUMEHOOD_DATA": str(data),
        "FUMEHOOD_PORT": str(free_port()),
        "FUMEHOOD_TEMPLATE": "base",
        # A pool holds more or fewer from one moment to the next.
        "FUMEHOOD_POOL_MAX": "0",
        "FUMEHOOD_CALL_MEMORY_SECONDS": "1",
    }
    command = [sys.executable, "-m", count_objects.__name__]
    finished = subprocess.run(
        command, env=environment, cwd=_CHECKOUT, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
    )
    assert finished.returncode == 0, finished.stderr[-5_000:]
    return json.loads(finished.stdout.splitlines()[-1])


def test_nothing_is_kept_of_sessions_and_calls_that_are_over(tmp_path: Path) -> None:
    counted = _counted(make_data_folder(tmp_path / "data"))
    assert len(counted) == count_objects.ROUNDS
    # What is kept of every session is kept in every round; what comes and goes by chance is not.
    grown = {
        kind: min(after.get(kind, 0) - before.get(kind, 0) for before, after in pairwise(counted))
        for kind in counted[-1]
    }
    assert {kind: more for kind, more in grown.items() if more >= count_objects.SESSIONS} == {}
