"""Fixtures of the commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.service import Service, service


@pytest.fixture
def server_of_its_own(new_data: Path) -> Iterator[Service]:
    """A server that the test may stop."""
    with service(new_data) as running:
        yield running
