"""`fumehood serve` starts only where it can keep its promises, and says what keeps it from starting."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.service import COMMAND, Service, Session, free_port, service

from fumehood.cli.serve import check_bind
from fumehood.errors import ConfigurationError
from fumehood.settings import Settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    check_bind(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_a_bind_beyond_loopback_without_tls_is_refused_unless_insecure_is_said(host: str) -> None:
    with pytest.raises(ConfigurationError, match="TLS"):
        check_bind(Settings(host=host))
    check_bind(Settings(host=host, insecure=True))
    check_bind(Settings(host=host, tls_certificate=Path("cert.pem"), tls_key=Path("key.pem")))


def _serve(data: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "FUMEHOOD_DATA": str(data), "FUMEHOOD_PORT": str(free_port())} | settings
    return subprocess.run(
        [str(COMMAND), "serve", *arguments], env=environment, capture_output=True, text=True, timeout=120
    )


def test_without_gvisor_it_refuses_to_start_and_names_the_command_that_mends_it(tmp_path: Path) -> None:
    finished = _serve(tmp_path / "data", FUMEHOOD_RUNSC="/nonexistent/runsc")
    assert finished.returncode == 1
    assert "runsc" in finished.stderr
    assert "make setup" in finished.stderr


def test_with_a_gvisor_too_old_it_refuses_to_start(tmp_path: Path) -> None:
    old = tmp_path / "runsc"
    old.write_text("#!/bin/sh\necho 'runsc version 0.0~20221219.0'\n")
    old.chmod(0o755)
    finished = _serve(tmp_path / "data", FUMEHOOD_RUNSC=str(old))
    assert finished.returncode == 1
    assert "20221219" in finished.stderr
    assert "make setup" in finished.stderr


def test_a_setting_that_is_not_valid_is_named_in_one_line(tmp_path: Path) -> None:
    finished = _serve(tmp_path / "data", FUMEHOOD_SESSION_TIMEOUT_SECONDS="28801")
    assert finished.returncode == 1
    assert finished.stderr.count("\n") == 1
    assert "FUMEHOOD_SESSION_TIMEOUT_SECONDS" in finished.stderr
    assert "28800" in finished.stderr


def test_it_tells_of_a_variable_that_is_no_setting_and_when_it_stops_of_the_sessions_that_end(new_data: Path) -> None:
    with service(new_data, {"FUMEHOOD_SANDBOX_MEMORY_BYTES": "1G", "FUMEHOOD_SANDBOX_MEMORY": "1G"}) as running:
        Session(running.client())
        assert running.stop() == 0
    lines = running.log.read_text().splitlines()
    assert lines[0].startswith("FUMEHOOD_SANDBOX_MEMORY is set, and is no setting")
    assert "FUMEHOOD_SANDBOX_MEMORY_BYTES" in lines[0]
    assert lines.count("stopping: 1 session ends") == 1
    assert lines[-1] == "stopped"


def test_a_public_address_on_the_command_line_is_refused(tmp_path: Path) -> None:
    finished = _serve(tmp_path / "data", "--host", "0.0.0.0")
    assert finished.returncode == 1
    assert "--insecure" in finished.stderr


def test_it_ends_by_sigterm_with_exit_code_0_and_has_made_keys_only_its_user_can_read(
    server_of_its_own: Service,
) -> None:
    credentials = server_of_its_own.data / "credentials"
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert server_of_its_own.data.stat().st_mode & 0o777 == 0o700
    assert server_of_its_own.process.send_signal(signal.SIGTERM) is None
    assert server_of_its_own.process.wait(60) == 0
