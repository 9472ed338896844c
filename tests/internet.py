"""An internet of network namespaces: a router, behind which every address answers, and a name service.

Run as a program it is what answers: `python internet.py LOG` serves every address of its namespace, and writes down
each connection and datagram that arrives.
"""

import asyncio
import json
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

ROUTER = "11.0.0.1"
WEB = "11.1.0.80"
ATTACKER = "11.66.6.66"
RESOLVER = "11.1.0.53"
PRIVATE = "10.20.0.5"
ALLOWED_PRIVATE = "10.20.0.99"
PORTS = (22, 80, 443, 853, 5353, 5432, 8080, 8800)
_IP_PKTINFO = 8
_NAMES = {
    ("web.test.", "A"): [WEB],
    ("www.web.test.", "A"): [WEB],
    ("attacker.test.", "A"): [ATTACKER],
    ("private.test.", "A"): [PRIVATE],
    ("granted.internal.test.", "A"): ["10.20.0.77"],
    ("metadata.test.", "A"): ["169.254.169.254"],
    ("loopback.test.", "A"): ["127.0.0.1"],
    ("mixed.test.", "A"): [WEB, PRIVATE],
    ("alias.test.", "CNAME"): ["private.test."],
    ("metadata.test.", "AAAA"): ["fd00:ec2::254"],
    ("web.test.", "AAAA"): ["2001:db8::80"],
    ("big.test.", "TXT"): ['"' + "x" * 250 + '" "' + "y" * 250 + '"'] * 1,
    ("huge.test.", "TXT"): [f'"{number:03}{"x" * 240}"' for number in range(20)],
}
_READY_SECONDS = 20


@dataclass
class Internet:
    """`router` is the namespace that is a server's machine; `log` what has arrived behind it."""

    router: str
    beyond: str
    log: Path

    def arrivals(self) -> list[dict[str, Any]]:
        """Each connection and datagram that has arrived, of whatever sender: `to`, `port`, `kind`, `data`."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def command(self, *arguments: str, at: str | None = None) -> str:
        """The output of a program that runs in the router's namespace, or that of another name."""
        inside = ["ip", "netns", "exec", at or self.router, *arguments]
        return subprocess.run(inside, check=True, capture_output=True, text=True, timeout=60).stdout

    @contextmanager
    def service(self, *arguments: str, at: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """A program that runs there meanwhile."""
        process = subprocess.Popen(["ip", "netns", "exec", at or self.router, *arguments])
        try:
            yield process
        finally:
            process.terminate()
            process.wait(_READY_SECONDS)

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """Another namespace, connected to nothing."""
        name = f"fht-{secrets.token_hex(3)}"
        _ip("netns", "add", name)
        try:
            _ip("-n", name, "link", "set", "lo", "up")
            yield name
        finally:
            _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=60)


@contextmanager
def internet(folder: Path) -> Iterator[Internet]:
    """One, taken away at the end with all that runs in it."""
    key = secrets.token_hex(3)
    router, beyond = f"fht-{key}-r", f"fht-{key}-i"
    made = Internet(router, beyond, folder / "arrivals")
    folder.mkdir(parents=True, exist_ok=True)
    made.log.touch()
    for name in (router, beyond):
        _ip("netns", "add", name)
    try:
        _ip("-n", router, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", beyond)
        for name, interface, address in ((router, "up0", ROUTER), (beyond, "down0", "11.0.0.2")):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", interface)
            _ip(
                "-n", name, "-6", "addr", "add", f"2001:db8::{1 if name == router else 2}/64", "dev", interface, "nodad"
            )
            _ip("-n", name, "link", "set", interface, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", router, "route", "add", "default", "via", "11.0.0.2")
        _ip("-n", router, "-6", "route", "add", "default", "via", "2001:db8::2")
        # Even what a router would never send on: the rules are what is tried, not the lack of a route.
        _ip("-n", router, "route", "add", "169.254.0.0/16", "via", "11.0.0.2")
        # Every address there is means that namespace itself, but for its neighbour.
        _ip("-n", beyond, "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "main")
        _ip("-n", beyond, "-6", "route", "add", "local", "::/0", "dev", "lo", "table", "main")
        with (
            made.service(*answering(made.log), at=beyond),
            made.service(sys.executable, __file__, str(folder / "router-arrivals"), at=router),
        ):
            wait_for(made, (WEB, "127.0.0.1"))
            yield made
    finally:
        for name in (router, beyond):
            _ip("netns", "del", name)


def answering(log: Path) -> list[str]:
    """The command that answers on every address of a namespace, and is a name service too."""
    return [sys.executable, __file__, str(log), "names"]


def wait_for(made: Internet, addresses: tuple[str, ...], at: str | None = None) -> None:
    """Wait until these answer."""
    script = (
        f"import socket,time\nend=time.monotonic()+{_READY_SECONDS}\n"
        f"for address in {addresses!r}:\n"
        "  while True:\n"
        "    try: socket.create_connection((address, 8800), 2).close(); break\n"
        "    except OSError:\n"
        "      if time.monotonic() > end: raise\n"
        "      time.sleep(0.02)\n"
    )
    made.command(sys.executable, "-c", script, at=at)


class Capture:
    """Every packet that crosses the interfaces of a namespace, until `stop`."""

    def __init__(self, namespace: str) -> None:
        self._socket = in_namespace(
            namespace, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3))
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024 * 1024)
        self._socket.settimeout(0.1)
        self.packets: list[bytes] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                self.packets.append(self._socket.recv(65536))

    def __enter__(self) -> "Capture":
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def with_mark(self, mark: bytes) -> list[bytes]:
        """The packets that hold `mark`."""
        return [packet for packet in [*self.packets] if mark in packet]


def in_namespace(name: str, function: Any) -> Any:
    """What a function gives that runs in the namespace of that name, in a thread of its own."""
    from fumehood.network import namespaces

    async def run() -> Any:
        descriptor = namespaces.open_named(name)
        try:
            return await namespaces.run(lambda _: function(), descriptor)
        finally:
            os.close(descriptor)

    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(run())))
    thread.start()
    thread.join()
    return result[0]


# What answers


class _Log:
    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def write(self, kind: str, to: str, port: int, data: bytes) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"kind": kind, "to": to, "port": port, "data": data.decode("latin-1")}) + "\n")


async def _serve(path: str, has_names: bool) -> None:
    log = _Log(path)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to, port = writer.get_extra_info("sockname")[:2]
        log.write("tcp", to, port, b"")
        with suppress(OSError, asyncio.IncompleteReadError):
            if port == 53 and has_names:
                while True:
                    (size,) = struct.unpack(">H", await reader.readexactly(2))
                    answer = _answer(await reader.readexactly(size), 65535)
                    writer.write(struct.pack(">H", len(answer)) + answer)
            while data := await reader.read(65536):
                log.write("data", to, port, data[:200])
                body = f"answer of {to}\n".encode()
                if data.startswith((b"GET", b"HEAD")):
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                writer.write(body)
        writer.close()

    for port in (*PORTS, 53):
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            listener = socket.socket(family, socket.SOCK_STREAM)
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
            for each in (listener, datagrams):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                try:
                    each.bind((address, port))
                except OSError:
                    # Another service of this namespace has it, on one address at least.
                    continue
            await asyncio.start_server(connected, sock=listener)
            if family == socket.AF_INET:
                datagrams.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
                datagrams.setblocking(False)
                asyncio.get_running_loop().add_reader(datagrams, _datagram, datagrams, port, log, has_names)
    await asyncio.Event().wait()


def _datagram(each: socket.socket, port: int, log: _Log, has_names: bool) -> None:
    data, control, _, sender = each.recvmsg(65536, 1024)
    to = socket.inet_ntoa(control[0][2][8:12])
    log.write("udp", to, port, data[:300])
    reply = _answer(data, 1232) if port == 53 and has_names else f"answer of {to}\n".encode()
    # From the address that was asked.
    information = struct.pack("=I4s4s", 0, socket.inet_aton(to), b"\0" * 4)
    with suppress(OSError):
        each.sendmsg([reply], [(socket.IPPROTO_IP, _IP_PKTINFO, information)], 0, sender)


_asked: dict[str, int] = {}


def _answer(wire: bytes, size_max: int) -> bytes:
    try:
        query = dns.message.from_wire(wire)
    except dns.exception.DNSException:
        return wire
    question = query.question[0]
    name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
    reply = dns.message.make_response(query)
    values = _NAMES.get((name, kind))
    if name == "rebind.test." and kind == "A":
        # The first answer is harmless, all later ones are not.
        _asked[name] = _asked.get(name, 0) + 1
        values = [WEB if _asked[name] == 1 else PRIVATE]
    if name == "alias.test." and kind == "A":
        reply.answer.append(dns.rrset.from_text(name, 5, "IN", "CNAME", "private.test."))
        reply.answer.append(dns.rrset.from_text("private.test.", 5, "IN", "A", PRIVATE))
    elif values is not None:
        reply.answer.append(dns.rrset.from_text(name, 5, "IN", kind, *values))
    elif not any(name == known for known, _ in _NAMES):
        reply.set_rcode(dns.rcode.NXDOMAIN)
    try:
        return reply.to_wire(max_size=size_max)
    except dns.exception.TooBig:
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], len(sys.argv) > 2))
