"""VPC mode: a private network that the operator declares, and of it only what the session's groups allow."""

import ipaddress
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests import internet as net
from tests.internet import Internet
from tests.postgresql import running_postgresql
from tests.security.test_network_modes import attempt, interpreter, printed
from tests.service import Service, Session, service

DATABASE = "10.20.0.5"
OTHER = "10.20.0.6"
SUBNET, BRIDGED, ROUTED, FOREIGN = "subnet-private00", "subnet-bridged00", "subnet-routed000", "subnet-foreign00"
TO_DATABASE, TO_NAME, TO_ALL, TO_NOTHING = "sg-database00", "sg-byname000", "sg-everything", "sg-nothing000"
_QUERY = f"""
import socket, struct
def ask():
    with socket.create_connection(('{DATABASE}', 5432), 8) as s:
        body = struct.pack('>i', 196608) + b'user\\0postgres\\0database\\0postgres\\0\\0'
        s.send(struct.pack('>i', len(body) + 4) + body)
        said = b''
        while b'Z\\0\\0\\0\\x05I' not in said: said += s.recv(4096)
        body = b"SELECT 'answer ' || 6 * 7\\0"
        s.send(b'Q' + struct.pack('>i', len(body) + 4) + body)
        said = b''
        while b'Z\\0\\0\\0\\x05I' not in said: said += s.recv(4096)
        return said[said.index(b'answer'):].split(b'C')[0]
try: print(ask())
except OSError as error: print('refused', error)
"""


@pytest.fixture(scope="module")
def internet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Internet]:
    with net.internet(tmp_path_factory.mktemp("internet")) as made:
        yield made


@pytest.fixture(scope="module")
def private(internet: Internet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A namespace with PostgreSQL on one address and other services on all, names too; the machine has a bridge."""
    with internet.namespace() as name:
        for address in (DATABASE, OTHER):
            internet.command("ip", "addr", "add", f"{address}/32", "dev", "lo", at=name)
        log = tmp_path_factory.mktemp("private") / "arrivals"
        with (
            running_postgresql(DATABASE, lambda start: net.in_namespace(name, start)),
            internet.service(*net.answering(log), at=name),
        ):
            net.wait_for(internet, (OTHER,), at=name)
            for command in ("link add br-test type bridge", "addr add 10.40.0.1/24 dev br-test", "link set br-test up"):
                internet.command("ip", *command.split())
            yield name


@pytest.fixture(scope="module")
def networked(tmp_path_factory: pytest.TempPathFactory, internet: Internet, private: str) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("vpc")
    settings = {"FUMEHOOD_UPLINK_NAMESPACE": internet.router, "FUMEHOOD_NETWORKS_FILE": str(declare(folder, private))}
    with service(folder / "data", settings) as running:
        yield running


def declare(folder: Path, private: str) -> Path:
    """The operator's file."""
    file = folder / "networks.toml"
    file.write_text(f"""
[subnets.{SUBNET}]
namespace = "{private}"
resolvers = ["{OTHER}"]

[subnets.{BRIDGED}]
bridge = "br-test"
addresses = "10.40.0.0/24"
gateway = "10.40.0.1"

[subnets.{ROUTED}]
cidr = "10.60.0.0/16"

[subnets.{FOREIGN}]
cidr = "10.61.0.0/16"
accounts = ["222222222222"]

[security_groups.{TO_DATABASE}]
egress = [{{ to = "{DATABASE}", ports = "5432" }}]

[security_groups.{TO_NAME}]
egress = [{{ to = "private.test", ports = "5432" }}]

[security_groups.{TO_ALL}]
egress = [{{ to = "0.0.0.0/0", protocol = "all" }}]

[security_groups.{TO_NOTHING}]
egress = []
""")
    return file


def start(server: Service, name: str, subnet: str, *groups: str) -> Session:
    """A session in a subnet, with these groups."""
    control = server.client("bedrock-agentcore-control")
    vpc = {"subnets": [subnet], "securityGroups": list(groups)}
    made = control.create_code_interpreter(name=name, networkConfiguration={"networkMode": "VPC", "vpcConfig": vpc})
    got = control.get_code_interpreter(codeInterpreterId=made["codeInterpreterId"])
    assert got["networkConfiguration"]["vpcConfig"] == vpc
    return Session(server.client(), made["codeInterpreterId"])


def test_a_database_is_reached_with_its_group_and_nothing_else_is(networked: Service) -> None:
    session = start(networked, "database", SUBNET, TO_DATABASE)
    assert printed(session, _QUERY) == "b'answer 42'"
    others = [(DATABASE, 80), (OTHER, 5432), (OTHER, 80), (net.WEB, 80), (net.ROUTER, 8800), ("169.254.169.254", 80)]
    for host, port in others:
        assert attempt(session, host, port).startswith("refused"), host
        assert attempt(session, host, port, "udp").startswith("refused"), host
    session.stop()


def test_it_is_not_reached_with_another_group(networked: Service) -> None:
    session = start(networked, "nothing", SUBNET, TO_NOTHING)
    assert printed(session, _QUERY).startswith("refused")
    session.stop()


def test_groups_add_up(networked: Service) -> None:
    session = start(networked, "both", SUBNET, TO_NOTHING, TO_DATABASE)
    assert printed(session, _QUERY) == "b'answer 42'"
    session.stop()


def test_a_group_by_domain_opens_what_the_networks_own_resolver_says(networked: Service) -> None:
    session = start(networked, "byname", SUBNET, TO_NAME)
    assert printed(session, _QUERY).startswith("refused")
    assert printed(session, "import socket; print(socket.gethostbyname('private.test'))") == DATABASE
    assert printed(session, _QUERY) == "b'answer 42'"
    code = "import socket\ntry: print(socket.gethostbyname('web.test'))\nexcept OSError: print('refused')"
    assert printed(session, code) == "refused"
    session.stop()


def test_a_group_that_allows_all_reaches_its_network_and_not_this_machine_nor_what_means_it(networked: Service) -> None:
    session = start(networked, "all", SUBNET, TO_ALL)
    assert attempt(session, OTHER, 80) == "reached"
    for host in ("169.254.169.254", "127.0.0.1", "0.0.0.0", net.ROUTER, net.WEB):
        assert not attempt(session, host, 8800).startswith(("reached", "closed")), host
    session.stop()


def test_a_bridge_of_the_machine_is_a_network_and_the_machine_on_it_is_not(
    networked: Service, internet: Internet
) -> None:
    with internet.namespace() as neighbour:
        command = f"link add nb0 type veth peer name eth0 netns {neighbour}"
        internet.command("ip", *command.split())
        internet.command("ip", *["link", "set", "nb0", "master", "br-test", "up"])
        for each in ("addr add 10.40.0.9/24 dev eth0", "link set eth0 up"):
            internet.command("ip", *each.split(), at=neighbour)
        with internet.service(*net.answering(Path("/dev/null")), at=neighbour):
            net.wait_for(internet, ("10.40.0.9",), at=neighbour)
            session = start(networked, "bridged", BRIDGED, TO_ALL)
            assert attempt(session, "10.40.0.9", 80) == "reached"
            for host in ("10.40.0.1", net.ROUTER):
                assert attempt(session, host, 8800).startswith("refused"), host
            session.stop()


def test_what_the_machine_routes_is_reached_within_its_range(networked: Service) -> None:
    session = start(networked, "routed", ROUTED, TO_ALL)
    assert attempt(session, "10.60.0.7", 80) == "reached"
    for host in ("10.61.0.7", net.WEB, net.ROUTER):
        assert attempt(session, host, 80).startswith("refused"), host
    session.stop()


@pytest.mark.parametrize(
    ("subnet", "group", "field"),
    [
        ("subnet-unknown00", TO_ALL, "networkConfiguration.vpcConfig.subnets"),
        (SUBNET, "sg-unknown000", "networkConfiguration.vpcConfig.securityGroups"),
        (FOREIGN, TO_ALL, "networkConfiguration.vpcConfig.subnets"),
    ],
)
def test_what_is_not_declared_for_the_account_is_refused_at_creation(
    networked: Service, subnet: str, group: str, field: str
) -> None:
    with pytest.raises(ClientError) as refused:
        start(networked, "strange", subnet, group)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert field in refused.value.response["Error"]["Message"]


def test_public_does_not_reach_what_is_declared(networked: Service, private: str, internet: Internet) -> None:
    session = Session(networked.client(), interpreter(networked, "public_beside"))
    for host in (DATABASE, OTHER, "10.40.0.1", "10.60.0.7"):
        assert attempt(session, host, 5432).startswith("refused"), host
    for end in internet.command("ip", "-br", "-4", "addr", at=private).splitlines():
        if "/31" in end:
            assert attempt(session, str(ipaddress.ip_interface(end.split()[2]).ip), 5432).startswith("refused")
    session.stop()
