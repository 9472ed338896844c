"""The rules in force around one sandbox, and where its packets pass the machine: nftables, all at once."""

import subprocess
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Network

from fumehood.network import namespaces
from fumehood.network.policy import PORTS_ALL, Egress, Rule

TABLE = "fumehood"
"""The table in a slot's own namespace."""
GATEWAY, GUEST, LINK = "192.0.0.1", "192.0.0.2", IPv4Network("192.0.0.0/29")
"""The link between a slot and its sandbox, the same in all: a range that no network has (RFC 7335)."""
INTERFACES = "fh"
"""What names of links to slots begin with, those of every server."""
GUEST_SIDE, UPLINK_SIDE = "guest", "uplink"
"""The interfaces of a slot."""
CONNECTIONS_MAX = 2048
"""Connections, and datagrams' flows, that one sandbox may have open at once."""
_LEARNED_MAX = 4096
_APPLY_SECONDS = 20.0
# What gVisor tells the program at once: a reset, a closed port; an administrative prohibition it would not.
_REFUSE = """
    chain refuse {
        meta l4proto tcp reject with tcp reset
        meta l4proto udp reject with icmpx port-unreachable
        reject with icmpx admin-prohibited
    }
"""


class FirewallError(Exception):
    """Rules could not be put in force; none of them is then."""


def slot_rules(egress: Egress, *, has_resolver: bool) -> str:
    """All rules of one slot, in place of those that it has."""
    resolver = f"""
        iifname {GUEST_SIDE} ip saddr {GUEST} ip daddr {GATEWAY} udp dport 53 accept
        iifname {GUEST_SIDE} ip saddr {GUEST} ip daddr {GATEWAY} tcp dport 53 accept"""
    return f"""
add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
    set granted {{ {_LEARNED} }}
    set learned {{ {_LEARNED} }}
    {_REFUSE}
    chain input {{
        type filter hook input priority filter; policy drop;
        ct state established,related accept{resolver if has_resolver else ""}
        jump refuse
    }}
    chain forward {{
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname != {GUEST_SIDE} drop
        ip saddr != {GUEST} drop
        ct state != new jump refuse
        meta nfproto ipv6 jump refuse
        ct count over {CONNECTIONS_MAX} jump refuse
        {f"ip daddr != {egress.within} jump refuse" if egress.within is not None else ""}
        {_lines(_accept(rule) for rule in egress.allowed if rule.cidr is not None)}
        ip daddr . meta l4proto . th dport @granted accept
        ip daddr {{ {", ".join(map(str, egress.forbidden))} }} jump refuse
        {_lines(_accept(rule) for rule in egress.open if rule.cidr is not None)}
        ip daddr . meta l4proto . th dport @learned accept
        {"meta l4proto { tcp, udp } accept" if egress.is_open else ""}
        {"icmp type echo-request accept" if egress.is_open else ""}
        jump refuse
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        oifname {UPLINK_SIDE} masquerade
    }}
}}
"""


_LEARNED = f"type ipv4_addr . inet_proto . inet_service; flags interval, timeout; size {_LEARNED_MAX};"


def learned_elements(set_name: str, addresses: Iterable[str], rules: Iterable[Rule], seconds: int) -> str:
    """What opens addresses that were just resolved, as their rules say, for that many seconds."""
    elements = [
        f"{address} . {protocol} . {_range(rule.ports)} timeout {seconds}s"
        for address in addresses
        for rule in rules
        for protocol in rule.protocols
        if protocol != "icmp"
    ]
    if not elements:
        return ""
    what = f"element inet {TABLE} {set_name} {{ {', '.join(elements)} }}\n"
    # One that is there already would keep its old time.
    return f"add {what}delete {what}add {what}"


def uplink_rules(
    table: str,
    prefix: str,
    sources: IPv4Network,
    interface: str | None,
    allowed: tuple[Rule, ...],
    forwarding: Mapping[str, bool],
) -> str:
    """The rules where all slots' packets leave: interfaces that begin with `prefix`, addresses in `sources`.

    `interface` is the only one that they may leave by, if it is given. `forwarding` are the machine's interfaces that
    forward for slots alone, and whether each is a bridge: nobody else has packets forwarded by them.
    """
    slots, every = f'"{prefix}*"', f'"{INTERFACES}*"'
    known = [rule for rule in allowed if rule.cidr is not None]
    return f"""
add table inet {table}
delete table inet {table}
table inet {table} {{
    {_REFUSE}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname != {slots} accept
        {_lines(_accept(rule) for rule in known)}
        jump refuse
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        oifname {slots} ct state established,related accept
        oifname {slots} jump refuse
        {_lines(_for_slots_alone(name, every, forwarding[name]) for name in forwarding)}
        iifname != {slots} accept
        ip saddr != {sources} drop
        ct state established,related accept
        {_lines(_accept_original(rule) for rule in known)}
        ct status dnat jump refuse
        {f'oifname != "{interface}" jump refuse' if interface is not None else ""}
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {sources} oifname != {slots} masquerade
    }}
}}
"""


def _for_slots_alone(interface: str, slots: str, is_bridge: bool) -> str:
    # What only crosses a bridge passes here too, on some machines, and is not forwarded.
    crossing = f'oifname != "{interface}" ' if is_bridge else ""
    return f'iifname "{interface}" {crossing}oifname != {slots} drop'


def _lines(lines: Iterable[str]) -> str:
    return "\n        ".join(lines)


def _accept(rule: Rule) -> str:
    return "\n        ".join(f"ip daddr {rule.cidr} {_protocol(each, rule.ports)} accept" for each in rule.protocols)


def _accept_original(rule: Rule) -> str:
    """As `_accept`, of what was asked for, whatever the machine's own rules made of it since."""
    low, high = rule.ports
    if rule.ports == PORTS_ALL:
        return f"ct original ip daddr {rule.cidr} accept"
    return "\n        ".join(
        f"meta l4proto {each} ct original ip daddr {rule.cidr} ct original proto-dst {low}-{high} accept"
        for each in rule.protocols
        if each != "icmp"
    )


def _protocol(protocol: str, ports: tuple[int, int]) -> str:
    if protocol == "icmp":
        return "icmp type echo-request"
    return f"meta l4proto {protocol}" if ports == PORTS_ALL else f"{protocol} dport {_range(ports)}"


def _range(ports: tuple[int, int]) -> str:
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def load(rules: str) -> None:
    """Put rules in force in this thread's namespace, all at once. FirewallError, nothing changed, if that cannot be."""
    try:
        done = subprocess.run(
            ["nft", "-f", "-"],
            input=rules,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_APPLY_SECONDS,
            check=False,
        )
    except OSError as error:
        raise FirewallError(f"nft cannot be run ({error.strerror})") from None
    except subprocess.TimeoutExpired:
        raise FirewallError(f"nft did not end within {_APPLY_SECONDS:g} s") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()
        raise FirewallError(f"nft refused the rules: {said[0] if said else done.returncode}")


async def apply(rules: str, namespace: int) -> None:
    """As `load`, in the namespace of a descriptor."""
    await namespaces.run(lambda _: load(rules), namespace)
