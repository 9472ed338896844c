"""`fumehood serve` starts only where it can keep its promises, and says what keeps it from starting."""

import http.client
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.certificates import make_authority
from tests.service import COMMAND, Service, Session, free_port, service
from tests.unit.test_operator_files import BROKEN, spoil
from tests.waiting import wait_until

from fumehood.cli.modes import told
from fumehood.cli.serve import check_bind, check_certificate
from fumehood.errors import ConfigurationError
from fumehood.sandbox.machine import Check
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


def test_tls_that_cannot_be_had_is_told_with_the_setting(tmp_path: Path) -> None:
    authority = make_authority("Somebody")
    certificate, key, other = (tmp_path / name for name in ("cert.pem", "key.pem", "other.pem"))
    certificate.write_text(authority.server_certificate.decode())
    key.write_text(authority.server_key.decode())
    other.write_text(make_authority("Somebody else").server_key.decode())
    check_certificate(Settings())
    check_certificate(Settings(tls_certificate=certificate, tls_key=key))
    missing = tmp_path / "none.pem"
    for given, words in (
        ({"tls_certificate": certificate}, "FUMEHOOD_TLS_KEY is not set"),
        ({"tls_key": key}, "FUMEHOOD_TLS_CERTIFICATE is not set"),
        ({"tls_certificate": missing, "tls_key": key}, f"FUMEHOOD_TLS_CERTIFICATE: {missing} cannot be read"),
        ({"tls_certificate": certificate, "tls_key": missing}, f"FUMEHOOD_TLS_KEY: {missing} cannot be read"),
        ({"tls_certificate": certificate, "tls_key": other}, "are no certificate and its key"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            check_certificate(Settings(**given))


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


def test_settings_that_contradict_each_other_are_refused_with_both(tmp_path: Path) -> None:
    finished = _serve(tmp_path / "data", FUMEHOOD_POOL_MIN="3", FUMEHOOD_POOL_MAX="2")
    assert finished.returncode == 1
    assert finished.stderr.startswith("fumehood cannot serve: FUMEHOOD_POOL_MIN is 3 and FUMEHOOD_POOL_MAX is 2")
    assert finished.stderr.count("\n") == 1


def test_a_limit_by_its_former_name_is_refused(tmp_path: Path) -> None:
    finished = _serve(tmp_path / "data", FUMEHOOD_SANDBOX_PROCESSES_MAX="64")
    assert finished.returncode == 1
    assert "is called FUMEHOOD_SANDBOX_PROCESSES now" in finished.stderr


def test_it_tells_of_a_variable_that_is_no_setting_and_when_it_stops_of_the_sessions_that_end(new_data: Path) -> None:
    with service(new_data, {"FUMEHOOD_SANDBOX_MEMORY_BYTES": "1G", "FUMEHOOD_SANDBOX_MEMORY": "1G"}) as running:
        Session(running.client())
        assert running.stop() == 0
    lines = running.log.read_text().splitlines()
    assert lines[0].startswith("FUMEHOOD_SANDBOX_MEMORY is set, and is no setting")
    assert "FUMEHOOD_SANDBOX_MEMORY_BYTES" in lines[0]
    assert lines.count("stopping: 1 session ends") == 1
    assert lines[-1] == "stopped"


@pytest.mark.parametrize("name", BROKEN)
def test_with_a_broken_file_of_the_operator_s_it_refuses_to_start(tmp_path: Path, name: str) -> None:
    data = tmp_path / "data"
    says = spoil(data, name)
    named = {"FUMEHOOD_NETWORKS_FILE": str(data / "networks.toml")} if name == "networks file" else {}
    finished = _serve(data, **named)
    assert finished.returncode == 1
    assert finished.stderr.startswith("fumehood cannot serve: ")
    assert says in finished.stderr
    assert str(data / BROKEN[name][0]) in finished.stderr
    assert not (data / "server.lock").exists()


def test_it_tells_its_network_modes_and_of_a_file_that_breaks_though_nobody_calls(new_data: Path) -> None:
    with service(new_data) as running:
        wait_until(lambda: "Network modes: SANDBOX, PUBLIC" in running.log.read_text(), "its modes", 60)
        for name in ("policies file", "roles file", "file systems file"):
            spoil(new_data, name)
        for file in ("policies.json", "roles.json", "filesystems.json"):
            wait_until(lambda path=new_data / file: _told_broken(running.log, path), f"{file} is logged", 30)


@pytest.mark.parametrize(
    ("trial", "subnets", "line"),
    [
        (
            Check("network", True, "fine"),
            0,
            "SANDBOX, PUBLIC (no subnet is declared for VPC)",
        ),
        (Check("network", True, "fine"), 1, "SANDBOX, PUBLIC, VPC with 1 subnet"),
        (Check("network", False, "no PUBLIC or VPC:\n no nft"), 3, "SANDBOX only: `fumehood doctor` says why"),
    ],
)
def test_the_modes_that_interpreters_can_have_are_told(trial: Check, subnets: int, line: str) -> None:
    assert told(trial, subnets) == line


def _told_broken(log: Path, path: Path) -> bool:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    told = [line for line in lines if line["event"] == "file_not_reloaded" and line["path"] == str(path)]
    return len(told) == 1


def test_a_public_address_on_the_command_line_is_refused(tmp_path: Path) -> None:
    finished = _serve(tmp_path / "data", "--host", "0.0.0.0")
    assert finished.returncode == 1
    assert "--insecure" in finished.stderr


def test_a_connection_is_kept_while_an_agent_thinks(server: Service) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/ping")
    assert connection.getresponse().read()
    used = connection.sock
    # uvicorn's own patience is 5 s; a connection that is closed just as the next call comes fails that call.
    time.sleep(6)
    connection.request("GET", "/ping")
    assert connection.getresponse().read()
    assert connection.sock is used
    connection.close()


def test_it_ends_by_sigterm_with_exit_code_0_and_has_made_keys_only_its_user_can_read(
    server_of_its_own: Service,
) -> None:
    credentials = server_of_its_own.data / "credentials"
    assert credentials.stat().st_mode & 0o777 == 0o600
    assert server_of_its_own.data.stat().st_mode & 0o777 == 0o700
    assert server_of_its_own.process.send_signal(signal.SIGTERM) is None
    assert server_of_its_own.process.wait(60) == 0
