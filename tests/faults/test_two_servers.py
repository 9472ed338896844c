"""A second server neither takes the first one's sandboxes for a dead server's nor starts beside it."""

import os
import subprocess

from tests.service import COMMAND, Service, Session, free_port


def _second(server: Service, port: int) -> subprocess.CompletedProcess[str]:
    settings = {"FUMEHOOD_DATA": str(server.data), "FUMEHOOD_PORT": str(port)}
    return subprocess.run(
        [str(COMMAND), "serve"],
        env={"PATH": os.environ["PATH"]} | settings,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_second_server_on_the_same_data_folder_is_refused_and_ends_no_session(
    server: Service, session: Session
) -> None:
    session.run("kept = 42")
    refused = _second(server, free_port())
    assert refused.returncode == 1
    assert "another server" in refused.stderr
    assert str(server.process.pid) in refused.stderr
    assert session.run("kept")["structuredContent"]["stdout"] == "42"
    assert server.ask_for_environment()["AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"] == server.url


def test_a_port_in_use_is_named_and_no_session_ends(server: Service, session: Session) -> None:
    refused = _second(server, server.port)
    assert refused.returncode == 1
    assert f"port {server.port}" in refused.stderr
    assert "FUMEHOOD_PORT" in refused.stderr
    assert session.run("6 * 7")["structuredContent"]["stdout"] == "42"
