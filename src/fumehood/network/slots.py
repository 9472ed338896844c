"""Network slots: what stands between one sandbox and a network. Each is two namespaces, which live as long as it does.

The sandbox's engine starts in the inner one, which has one interface and no rule. All that it sends arrives in the
outer one, which has the rules, the sandbox's resolver, and a link to where packets leave. Neither has a name: a server
that is killed leaves none, and a keeper holds those of its sandbox.
"""

import json
import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from fumehood.network import firewall, namespaces, netlink
from fumehood.network.firewall import GATEWAY, GUEST, GUEST_SIDE, LINK, UPLINK_SIDE
from fumehood.network.policy import Egress

_FILE = "slot.json"
_BACKLOG = 16
# All addresses but those that mean several machines: without a route to these, a program is told so at once.
_GUEST_ROUTES = ("0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/3")


@dataclass(frozen=True)
class Link:
    """Where a slot's packets go: its address there, and the next hop."""

    interface: str
    """The name of the far end."""
    address: IPv4Interface
    gateway: IPv4Address | None
    number: int
    """The link's in the uplink, which no two slots have at once."""


@dataclass
class Slot:
    """One slot. Whoever closes it lets it go: it stays as long as a process is in it."""

    link: Link
    outer: int
    """A descriptor of the namespace with the rules."""
    inner: int | None
    """One of the sandbox's side, until a sandbox has started in it."""
    udp: socket.socket
    tcp: socket.socket

    async def enforce(self, egress: Egress, *, has_resolver: bool) -> None:
        """Put the rules of one sandbox in force. FirewallError, the slot as it was, if that cannot be."""
        await firewall.apply(firewall.slot_rules(egress, has_resolver=has_resolver), self.outer)

    async def cut(self) -> None:
        """Take away its way out, whoever is still in it."""
        await namespaces.run(lambda _: _remove(UPLINK_SIDE), self.outer)

    def close_inner(self) -> None:
        """Leave the sandbox's side to the sandbox."""
        if self.inner is not None:
            os.close(self.inner)
            self.inner = None

    def close(self) -> None:
        """Let it go."""
        self.close_inner()
        self.udp.close()
        self.tcp.close()
        with suppress(OSError):
            os.close(self.outer)


def write(folder: Path, link: Link) -> None:
    """Keep in a sandbox's folder what another server needs to know of its slot."""
    values = asdict(link) | {
        "address": str(link.address),
        "gateway": None if link.gateway is None else str(link.gateway),
    }
    (folder / _FILE).write_text(json.dumps(values))


def read(folder: Path) -> Link | None:
    """What `write` kept; None if the sandbox has no slot. ValueError if it cannot be told."""
    try:
        values = json.loads((folder / _FILE).read_text())
    except FileNotFoundError:
        return None
    try:
        gateway = None if values["gateway"] is None else IPv4Address(values["gateway"])
        return Link(values["interface"], IPv4Interface(values["address"]), gateway, values["number"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"{folder / _FILE} is of another version") from error


async def build(link: Link, far_namespace: int, far_address: IPv4Interface | None, bridge: str | None) -> Slot:
    """A new slot, which refuses everything. Its far end, in `far_namespace`, gets `far_address` or is of `bridge`.

    OSError or FirewallError if it cannot be made; nothing is left then.
    """
    return await namespaces.run(lambda thread: _build(thread, link, far_namespace, far_address, bridge))


async def adopt(link: Link, keeper: int) -> Slot:
    """The slot that an earlier server made, of a sandbox whose keeper is that process. OSError if it is gone."""
    outer = namespaces.open_of_process(keeper)
    try:
        udp, tcp = await namespaces.run(lambda _: _resolver_sockets(), outer)
    except BaseException:
        os.close(outer)
        raise
    return Slot(link, outer, None, udp, tcp)


def _build(
    thread: namespaces.Thread, link: Link, far: int, far_address: IPv4Interface | None, bridge: str | None
) -> Slot:
    opened: list[int] = []
    try:
        outer = thread.enter_new()
        opened.append(outer)
        _no_ipv6()
        _set("ipv4/ip_forward", "1")
        # Each refusal is told, not only some of them in a second.
        _set("ipv4/icmp_ratelimit", "0")
        # Before there is anything that a packet could come from.
        firewall.load(firewall.slot_rules(Egress(), has_resolver=False))
        # What is on its way in a connection that this slot never saw begin is refused, not waved through.
        _set("netfilter/nf_conntrack_tcp_loose", "0")
        inner = thread.enter_new()
        opened.append(inner)
        _no_ipv6()
        thread.enter(outer)
        _connect(link, inner, far)
        udp, tcp = _resolver_sockets()
        thread.enter(far)
        _set_up_far(link.interface, far_address, bridge)
        thread.enter(inner)
        _set_up_inner()
    except BaseException:
        for descriptor in opened:
            os.close(descriptor)
        raise
    return Slot(link, outer, inner, udp, tcp)


def _connect(link: Link, inner: int, far: int) -> None:
    with netlink.opened() as ip:
        ip.link("add", ifname=GUEST_SIDE, kind="veth", peer={"ifname": "eth0", "net_ns_fd": inner})
        ip.link("add", ifname=UPLINK_SIDE, kind="veth", peer={"ifname": link.interface, "net_ns_fd": far})
        guest, uplink = ip.link_lookup(ifname=GUEST_SIDE)[0], ip.link_lookup(ifname=UPLINK_SIDE)[0]
        ip.addr("add", index=guest, address=GATEWAY, prefixlen=LINK.prefixlen)
        ip.addr("add", index=uplink, address=str(link.address.ip), prefixlen=link.address.network.prefixlen)
        for index in (guest, uplink):
            ip.link("set", index=index, state="up")
        if link.gateway is not None:
            ip.route("add", dst="default", gateway=str(link.gateway))


def _set_up_far(interface: str, address: IPv4Interface | None, bridge: str | None) -> None:
    _set(f"ipv6/conf/{interface}/disable_ipv6", "1")
    with netlink.opened() as ip:
        index = ip.link_lookup(ifname=interface)[0]
        if bridge is not None:
            ip.link("set", index=index, master=ip.link_lookup(ifname=bridge)[0])
        if address is not None:
            ip.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)
            _set(f"ipv4/conf/{interface}/forwarding", "1")
        ip.link("set", index=index, state="up")


def _set_up_inner() -> None:
    with netlink.opened() as ip:
        index = ip.link_lookup(ifname="eth0")[0]
        ip.addr("add", index=index, address=GUEST, prefixlen=LINK.prefixlen)
        for each in (index, ip.link_lookup(ifname="lo")[0]):
            ip.link("set", index=each, state="up")
        for network in _GUEST_ROUTES:
            ip.route("add", dst=network, gateway=GATEWAY)


def _resolver_sockets() -> tuple[socket.socket, socket.socket]:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in (udp, tcp):
            each.setblocking(False)
            each.bind((GATEWAY, 53))
        tcp.listen(_BACKLOG)
    except BaseException:
        udp.close()
        tcp.close()
        raise
    return udp, tcp


def _remove(interface: str) -> None:
    with netlink.opened() as ip:
        for index in ip.link_lookup(ifname=interface):
            ip.link("del", index=index)


def _no_ipv6() -> None:
    for name in ("all", "default"):
        _set(f"ipv6/conf/{name}/disable_ipv6", "1")


def _set(name: str, value: str) -> None:
    """Set a variable of this thread's namespace. A machine without that protocol needs it not."""
    with suppress(FileNotFoundError):
        Path("/proc/sys/net", name).write_text(value)
