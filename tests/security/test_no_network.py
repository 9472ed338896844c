"""SANDBOX mode: no interface but loopback, no route, no name service, and not one packet on the host."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.service import Service, Session
from tests.waiting import wait_until

_PACKETS_ALL = 0x0003
# Addresses that nothing else on this machine would talk to (RFC 5737, RFC 3849), and ones that a breakout would try.
_TARGETS = {
    "a public address": ("192.0.2.7", 80),
    "a public name server": ("8.8.8.8", 53),
    "name service over TLS": ("1.1.1.1", 853),
    "the metadata service": ("169.254.169.254", 80),
    "the container metadata service": ("169.254.170.2", 80),
    "a private address": ("10.0.0.1", 22),
    "the usual gateway": ("172.17.0.1", 8800),
    "a link-local address": ("169.254.1.1", 443),
    "broadcast": ("255.255.255.255", 67),
    "multicast": ("224.0.0.251", 5353),
    "a public IPv6 address": ("2001:db8::7", 443),
    "the IPv6 metadata service": ("fd00:ec2::254", 80),
    "all IPv6 nodes": ("ff02::1", 5353),
}


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_DGRAM"])
@pytest.mark.parametrize("target", _TARGETS.values(), ids=_TARGETS)
def test_no_packet_can_be_sent_to(inside: Session, target: tuple[str, int], kind: str) -> None:
    host, port = target
    family = "AF_INET6" if ":" in host else "AF_INET"
    code = f"""
import socket
s = socket.socket(socket.{family}, socket.{kind})
s.settimeout(10)
try:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    s.connect(({host!r}, {port})); s.send(b'x'); print('sent')
except TimeoutError: print('a black hole')
except OSError as error: print('refused', error)
"""
    assert inside.run(code)["structuredContent"]["stdout"].startswith("refused")


_PACKAGE_MANAGERS = {
    "pip": ("python3 -m pip install humanize", "there-is-no-network-in-sandbox-mode"),
    "pip in code": ("python3 -c \"import os; os.system('python3 -m pip download humanize')\"", "there-is-no-network"),
    "npm": ("npm install left-pad", "there-is-no-network-in-sandbox-mode"),
    "npx": ("npx --yes cowsay hello", "there-is-no-network-in-sandbox-mode"),
    "curl": ("curl -sS https://example.com", "Could not resolve host"),
    "git": ("git clone https://example.com/x", "Could not resolve host"),
}


@pytest.mark.parametrize(("command", "told"), _PACKAGE_MANAGERS.values(), ids=_PACKAGE_MANAGERS)
def test_what_would_fetch_fails_without_trying_again_and_says_why(inside: Session, command: str, told: str) -> None:
    result = inside.sh(command)["structuredContent"]
    assert result["exitCode"] != 0 or "os.system" in command
    assert told in result["stdout"] + result["stderr"]
    assert "Retrying" not in result["stderr"]


def test_code_has_the_environment_that_commands_have(inside: Session) -> None:
    code = "import os; print(os.environ['PIP_INDEX_URL'], os.environ['npm_config_registry'])"
    printed = inside.sh("echo $PIP_INDEX_URL $npm_config_registry")["structuredContent"]["stdout"]
    assert inside.run(code)["structuredContent"]["stdout"] == printed.strip()


@pytest.mark.parametrize(
    "name", ["example.com", "s3.amazonaws.com", "data.attacker.s3.amazonaws.com", "metadata.google.internal", "x.local"]
)
def test_no_name_resolves(inside: Session, name: str) -> None:
    result = inside.sh(f"getent ahosts {name}")["structuredContent"]
    assert (result["stdout"], result["exitCode"]) == ("", 2)


@pytest.mark.parametrize("address", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "[::ffff:169.254.169.254]"])
def test_the_metadata_service_is_not_there_by_another_spelling(inside: Session, address: str) -> None:
    code = (
        f"import urllib.request\nprint(urllib.request.urlopen('http://{address}/latest/meta-data/', timeout=10).status)"
    )
    result = inside.run(code)["structuredContent"]
    assert (result["stdout"], result["exitCode"]) == ("", 1)
    assert "timed out" not in result["stderr"]


def test_there_is_no_interface_but_loopback_and_no_route(inside: Session) -> None:
    names = inside.run("import socket; print([name for _, name in socket.if_nameindex()])")["structuredContent"]
    assert names["stdout"] == "['lo']"
    routes = inside.sh("tail -n +2 /proc/net/route; cat /proc/net/ipv6_route; ls /sys/class/net")["structuredContent"]
    assert routes["stdout"].split() in ([], ["lo"])


def test_no_service_of_the_host_answers_on_loopback(inside: Session, server: Service) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=10).close()
        code = f"""
import socket
for port in ({port}, {server.port}):
    try: socket.create_connection(('127.0.0.1', port), timeout=10); print('connected')
    except OSError as error: print('refused')
"""
        assert inside.run(code)["structuredContent"]["stdout"] == "refused\nrefused"


class _Capture:
    """All packets on all interfaces of the host, whole."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_PACKETS_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024 * 1024)
        self._socket.settimeout(0.2)
        self._packets: list[bytes] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopping.is_set():
            try:
                self._packets.append(self._socket.recv(65536))
            except TimeoutError:
                continue

    def with_mark(self, mark: bytes) -> list[bytes]:
        """The packets that hold `mark`."""
        return [packet for packet in [*self._packets] if mark in packet]

    def stop(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()
        self._socket.close()


@contextmanager
def _capture() -> Iterator[_Capture]:
    capture = _Capture()
    try:
        yield capture
    finally:
        capture.stop()


def test_nothing_that_code_tries_to_send_appears_on_any_interface_of_the_host(inside: Session) -> None:
    """With a positive control before and after: the same mark, sent by this test, is seen."""
    mark = b"fumehood-mark-%d" % time.time_ns()
    targets = json.dumps(list(_TARGETS.values()))
    code = f"""
import json, socket, struct
mark = {mark!r}
query = struct.pack('>HHHHHH', 1, 256, 1, 0, 0, 0) + bytes([len(mark)]) + mark + b'\\x03com\\x00\\x00\\x01\\x00\\x01'
tried = 0
for host, port in json.loads({targets!r}):
    for family in (socket.AF_INET, socket.AF_INET6):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_RAW):
            for destination in {{port, 53}}:
                try:
                    s = socket.socket(family, kind, 1 if kind == socket.SOCK_RAW else 0); s.settimeout(1)
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                    s.connect((host, destination)); s.sendto(query, (host, destination))
                except OSError: tried += 1
print(tried)
"""

    def control(capture: _Capture, count: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(struct.pack(">I", count) + mark, ("127.0.0.1", 9))
        wait_until(lambda: capture.with_mark(struct.pack(">I", count) + mark), "the control packet")

    with _capture() as capture:
        control(capture, 1)
        assert int(inside.run(code)["structuredContent"]["stdout"]) > 50
        inside.sh(f"getent hosts {mark.decode()}.example.com; getent hosts {mark.decode()}.s3.amazonaws.com")
        control(capture, 2)
        controls = [capture.with_mark(struct.pack(">I", count) + mark) for count in (1, 2)]
        from_calls = [packet for packet in capture.with_mark(mark) if b"executeC" in packet or b"getent" in packet]
        others = [p for p in capture.with_mark(mark) if p not in from_calls and not any(p in c for c in controls)]
    # The requests that carry the code cross the host's loopback, and say what they are; nothing else may have the mark.
    assert from_calls
    assert others == []
