"""Rules: what may be reached, as people write it."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fumehood.network.policy import Egress, Rule, RuleError, parse_rule, public_egress


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("203.0.113.7", Rule(cidr=IPv4Network("203.0.113.7/32"))),
        ("203.0.113.0/24:443", Rule(cidr=IPv4Network("203.0.113.0/24"), ports=(443, 443))),
        ("example.com", Rule(domain="example.com")),
        (".Example.com:8000-8100", Rule(domain=".example.com", ports=(8000, 8100))),
    ],
)
def test_a_rule_is_read(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize(
    "text",
    [
        *("", ":443", "example.com:", "example.com:0", "example.com:70000", "example.com:9-8", "203.0.113.7/24"),
        *("203.0.113.300", "http://example.com", "*.example.com", "example", "a..b", "-a.com", "2001:db8::1", "a b"),
        *("example.com:80;drop", "example.com}\nflush ruleset", "203.0.113.0/24 accept", "x" * 300 + ".com"),
    ],
)
def test_what_is_no_rule_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(RuleError, match="is no rule"):
        parse_rule(text)


@pytest.mark.parametrize(
    ("domain", "name", "matches"),
    [
        ("example.com", "example.com", True),
        ("example.com", "EXAMPLE.com", True),
        ("example.com", "www.example.com", False),
        ("example.com", "notexample.com", False),
        (".example.com", "a.b.example.com", True),
        (".example.com", "example.com", False),
        (".example.com", "notexample.com", False),
        (".example.com", "example.com.attacker.net", False),
    ],
)
def test_a_domain_is_itself_or_what_is_below_it(domain: str, name: str, matches: bool) -> None:
    assert parse_rule(domain).matches_name(name) is matches


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.0.0.1", "100.64.0.1", "100.127.255.255", "127.0.0.1", "169.254.169.254", "172.16.0.1"),
        *("172.31.255.255", "192.0.0.1", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "198.51.100.1"),
        *("203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
    ],
)
def test_what_is_not_the_internets_is_forbidden(address: str) -> None:
    assert public_egress((), ()).is_forbidden(IPv4Address(address), "example.com")


@given(st.ip_addresses(v=4))
def test_every_address_that_is_not_global_is_forbidden(address: IPv4Address) -> None:
    assert address.is_global or public_egress((), ()).is_forbidden(address, "example.com")


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "11.0.0.1", "100.63.255.255", "100.128.0.1", "172.32.0.1", "223.255.255.255"]
)
def test_neighbours_of_forbidden_ranges_are_not(address: str) -> None:
    assert not public_egress((), ()).is_forbidden(IPv4Address(address), "example.com")


def test_an_operators_domain_opens_private_addresses_but_none_that_mean_the_machine() -> None:
    egress = public_egress((parse_rule(".internal.example"),), ())
    assert not egress.is_forbidden(IPv4Address("10.0.0.1"), "a.internal.example")
    assert egress.is_forbidden(IPv4Address("10.0.0.1"), "internal.example.attacker.net")
    for address in ("127.0.0.1", "169.254.169.254", "0.0.0.0", "224.0.0.1"):
        assert egress.is_forbidden(IPv4Address(address), "a.internal.example")


def test_a_list_opens_nothing_that_is_forbidden() -> None:
    egress = public_egress((), ("10.0.0.0/8", ".example.com"))
    assert egress.is_forbidden(IPv4Address("10.0.0.1"), "a.example.com")
    assert egress.may_resolve("a.example.com")
    assert not egress.may_resolve("attacker.net")
    assert not Egress().may_resolve("a.example.com")
