"""`fumehood template`: which template is meant, and what is told of it."""

import os
import subprocess
from dataclasses import replace

import pytest
from tests.service import COMMAND, SHARED_DATA

from fumehood.cli.template import described_lines, template_line
from fumehood.sandbox.template import own
from fumehood.settings import Settings


@pytest.mark.parametrize("settings", [{}, {"FUMEHOOD_TEMPLATE": "base"}], ids=str)
def test_a_build_without_a_name_is_of_the_template_that_the_server_would_start_from(settings: dict[str, str]) -> None:
    environment = {"PATH": os.environ["PATH"], "FUMEHOOD_DATA": str(SHARED_DATA)} | settings
    built = subprocess.run(
        [COMMAND, "template", "build"], env=environment, check=True, capture_output=True, text=True, timeout=900
    ).stdout
    wanted = settings.get("FUMEHOOD_TEMPLATE", "standard")
    assert built.startswith(f"template {wanted} ")


def test_a_template_tells_how_long_its_build_took_if_that_was_written_down() -> None:
    described = own.describe("base", Settings(data=SHARED_DATA))
    timed, untimed = (replace(described.template, build_seconds=seconds) for seconds in (97.6, None))
    built = f"built {timed.created_at.isoformat(timespec='seconds')}"
    assert f"{built} in 98 s" in template_line(timed)
    assert template_line(untimed).endswith(built)
    shown = described_lines(replace(described, template=timed))
    assert f"built: {timed.created_at.isoformat(timespec='seconds')} in 98 s" in shown
