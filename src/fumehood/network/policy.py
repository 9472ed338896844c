"""What a sandbox may reach: the modes, the ranges that are forbidden to all, and rules that allow."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from typing import Any

PORTS_ALL = (0, 65535)
_DOMAIN = re.compile(r"\.?(?=.{1,253}$)(?:(?!-)[a-z0-9_-]{1,63}(?<!-)\.)+(?!-)[a-z0-9-]{2,63}(?<!-)")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")

FORBIDDEN = tuple(
    IPv4Network(network)
    for network in (
        # In order: this host, private, carrier-grade NAT (the slots' own links too), loopback, link-local and metadata,
        # private, protocol assignments, documentation, 6to4 relays, private, benchmarks, documentation, multicast,
        # reserved and broadcast.
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
"""What PUBLIC never reaches, unless an operator's rule allows it: all that is not the internet's."""
NEVER = tuple(
    IPv4Network(network) for network in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)
"""What no rule of a network's groups opens: addresses that mean the machine itself, or everybody."""


class Mode(StrEnum):
    """The network modes of AgentCore."""

    SANDBOX = "SANDBOX"
    PUBLIC = "PUBLIC"
    VPC = "VPC"


@dataclass(frozen=True)
class Network:
    """All that a request can vary in the network of its sandbox."""

    mode: Mode = Mode.SANDBOX
    allow: tuple[str, ...] = ()
    """Rules as `parse_rule` reads them, beyond which nothing is reached; none for all that the mode permits."""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "none" if self.mode is Mode.SANDBOX else self.mode.lower()


SANDBOX = Network()
"""No network at all."""


def network_kind(network: Network) -> str:
    """What of a network a checkpoint depends on: one with any restores with any other, whatever it may reach."""
    return "none" if network.mode is Mode.SANDBOX else "networked"


def network_from(values: Mapping[str, Any]) -> Network:
    """A network of what `dataclasses.asdict` made of it, and JSON of that. TypeError or KeyError if it is none."""
    lists = {name: tuple(values[name]) for name in ("allow", "subnets", "security_groups")}
    return Network(Mode(values["mode"]), **lists)


class RuleError(ValueError):
    """What was given is no rule; the message says what one looks like."""


@dataclass(frozen=True)
class Rule:
    """Something that may be reached: a range of addresses, or a domain, whose addresses are learned by resolving it."""

    cidr: IPv4Network | None = None
    domain: str | None = None
    """Lower case; with a leading dot it is every name below."""
    ports: tuple[int, int] = PORTS_ALL
    protocols: tuple[str, ...] = ("tcp", "udp")
    """Of `tcp`, `udp` and `icmp`."""

    def matches_name(self, name: str) -> bool:
        """Whether the rule is about that name, which has no dot at its end."""
        # What has an escaped character may have dots within a label, and then is not below what it seems to be.
        if self.domain is None or "\\" in name:
            return False
        name = name.lower()
        return name.endswith(self.domain) if self.domain.startswith(".") else name == self.domain


def parse_rule(text: str, protocols: tuple[str, ...] = ("tcp", "udp")) -> Rule:
    """A rule such as `203.0.113.0/24`, `203.0.113.7:443`, `example.com`, `.example.com:8000-8100`. RuleError."""
    where, _, after = text.strip().partition(":")
    ports = PORTS_ALL if not after and ":" not in text else _ports(text, after)
    if where[:1].isdigit() and re.fullmatch(r"[0-9./]+", where):
        try:
            return Rule(cidr=IPv4Network(where), ports=ports, protocols=protocols)
        except ValueError as error:
            raise RuleError(f"{text[:80]!r} is no rule: {error}") from None
    domain = where.lower()
    if not _DOMAIN.fullmatch(domain):
        raise RuleError(
            f"{text[:80]!r} is no rule: one is an IPv4 address or CIDR, or a domain (.example.com for all below it), "
            "and may end in a port or range of ports, as in 203.0.113.0/24:443 or example.com:8000-8100"
        )
    return Rule(domain=domain, ports=ports, protocols=protocols)


def parse_rules(texts: Iterable[str], protocols: tuple[str, ...] = ("tcp", "udp")) -> tuple[Rule, ...]:
    """Each of several, as `parse_rule` does."""
    return tuple(parse_rule(text, protocols) for text in texts)


def _ports(text: str, ports: str) -> tuple[int, int]:
    found = _PORTS.fullmatch(ports)
    first, last = (0, 0) if found is None else (int(found[1]), int(found[2] or found[1]))
    if not 1 <= first <= last <= 65535:
        raise RuleError(f"{text[:80]!r} is no rule: after the colon comes a port, or a range of them as in 8000-8100")
    return first, last


@dataclass(frozen=True)
class Egress:
    """What one sandbox may reach. What none of these lets out is refused."""

    allowed: tuple[Rule, ...] = ()
    """Reached before anything is forbidden: what the operator says."""
    forbidden: tuple[IPv4Network, ...] = FORBIDDEN
    open: tuple[Rule, ...] = ()
    """Reached where it is not forbidden."""
    is_open: bool = False
    """Whether everything that is not forbidden is reached."""
    within: IPv4Network | None = None
    """Beyond it nothing is reached, whatever the rest says."""

    def may_resolve(self, name: str) -> bool:
        """Whether the name may be asked for at all."""
        return self.is_open or any(rule.matches_name(name) for rule in (*self.allowed, *self.open))

    def rules_for(self, name: str) -> list[Rule]:
        """The rules that open the addresses of a name."""
        return [rule for rule in (*self.allowed, *self.open) if rule.matches_name(name)]

    def is_forbidden(self, address: IPv4Address, name: str) -> bool:
        """Whether an address, found under a name, may not be told."""
        if any(rule.cidr is not None and address in rule.cidr for rule in self.allowed):
            return False
        if any(address in network for network in NEVER):
            return True
        if any(rule.matches_name(name) for rule in self.allowed):
            return False
        return any(address in network for network in self.forbidden)


def public_egress(operator: tuple[Rule, ...], allow: tuple[str, ...]) -> Egress:
    """The internet; of it only what `allow` says, if that says anything."""
    return Egress(allowed=operator, open=parse_rules(allow), is_open=not allow)
