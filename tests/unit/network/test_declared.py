"""The operator's file of networks and groups: read whole, or refused with where it is wrong."""

from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from fumehood.network.declared import DeclarationError, Declarations
from fumehood.network.policy import NEVER

_FILE = """
[subnets.subnet-0a1b2c3d]
namespace = "private"
resolvers = ["10.20.0.53"]
accounts = ["111111111111"]

[subnets.subnet-1a1b2c3d]
bridge = "br0"
addresses = "10.20.0.128/25"
gateway = "10.20.0.129"

[subnets.subnet-2a1b2c3d]
cidr = "10.30.0.0/16"

[security_groups.sg-0a1b2c3d]
egress = [{ to = "10.20.0.5", ports = "5432" }, { to = ".internal.example", protocol = "all" }]
"""


def write(folder: Path, text: str) -> Path:
    (folder / "networks.toml").write_text(text)
    return folder / "networks.toml"


def test_what_is_declared_is_known_to_the_accounts_that_may_use_it(tmp_path: Path) -> None:
    found = Declarations.load(write(tmp_path, _FILE)).present
    assert found.subnets["subnet-1a1b2c3d"].addresses == IPv4Interface("10.20.0.128/25")
    groups = ("sg-0a1b2c3d",)
    assert found.unusable("111111111111", ("subnet-0a1b2c3d",), groups) == []
    assert found.unusable("222222222222", ("subnet-0a1b2c3d",), groups) == ["subnet-0a1b2c3d"]
    assert found.unusable("111111111111", ("subnet-9a1b2c3d",), ("sg-9a1b2c3d",)) == ["subnet-9a1b2c3d", "sg-9a1b2c3d"]


def test_groups_say_what_is_reached_and_a_range_bounds_it(tmp_path: Path) -> None:
    found = Declarations.load(write(tmp_path, _FILE)).present
    egress = found.egress(found.subnets["subnet-2a1b2c3d"], ("sg-0a1b2c3d",))
    assert (egress.is_open, egress.allowed, egress.forbidden) == (False, (), NEVER)
    assert egress.within == IPv4Network("10.30.0.0/16")
    assert [rule.protocols for rule in egress.open] == [("tcp",), ("tcp", "udp", "icmp")]


def test_without_a_file_nothing_is_declared() -> None:
    assert Declarations.load(None).present.unusable("111111111111", ("subnet-0a1b2c3d",), ()) == ["subnet-0a1b2c3d"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[subnets", "is no TOML"),
        ("[networks.x]", "has no 'networks'"),
        ("subnets = 3", "must be tables"),
        ("[subnets.net-0a1b2c3d]\ncidr = '10.0.0.0/8'", "an id of a subnet is"),
        ("[subnets.subnet-0a1b2c3d]", "exactly one of"),
        ("[subnets.subnet-0a1b2c3d]\ncidr = '10.0.0.0/8'\nbridge = 'br0'", "exactly one of"),
        ("[subnets.subnet-0a1b2c3d]\nbridge = 'br0'", "needs addresses"),
        ("[subnets.subnet-0a1b2c3d]\ncidr = '10.0.0.1/8'", "cidr"),
        ("[subnets.subnet-0a1b2c3d]\nnamespace = 'x'\nresolvers = ['dns.example']", "resolvers"),
        ("[subnets.subnet-0a1b2c3d]\nnamespace = 'x'\naccounts = ['me']", "twelve digits"),
        ("[subnets.subnet-0a1b2c3d]\nnamespace = ''", "must be a text"),
        ("[security_groups.sg-0a1b2c3d]\negress = ['10.0.0.1']", "must be a list such as"),
        ("[security_groups.sg-0a1b2c3d]\negress = [{ to = '10.0.0.1', protocol = 'gre' }]", "a protocol of"),
        ("[security_groups.sg-0a1b2c3d]\negress = [{ to = '10.0.0.1', ports = '0' }]", "is no rule"),
        ("[security_groups.sg-0a1b2c3d]\negress = [{ ports = '5432' }]", "a rule has"),
        ("[security_groups.group-1]\negress = []", "an id of a security group is"),
        ("[security_groups.sg-0a1b2c3d]\nallow = []", "has no 'allow'"),
    ],
)
def test_what_is_wrong_is_told_with_the_file_and_the_place(tmp_path: Path, text: str, told: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(DeclarationError) as refused:
        Declarations.load(file)
    assert told in str(refused.value)
    assert str(file) in str(refused.value)
