"""Gives each sandbox its network: a slot, rules in force before anything of the sandbox runs, and a resolver."""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from pathlib import Path
from typing import TypeVar

import structlog

from fumehood.errors import ConfigurationError
from fumehood.network import firewall, namespaces, slots
from fumehood.network.declared import Declarations, Declared, Subnet
from fumehood.network.firewall import FirewallError
from fumehood.network.policy import Egress, Mode, Network, Rule, parse_rules, public_egress
from fumehood.network.refusals import Refusals
from fumehood.network.resolver import Resolver, Upstream, upstream_addresses
from fumehood.network.slots import Link, Slot
from fumehood.network.uplink import NetworkUnavailableError, Uplink
from fumehood.settings import PREFIX, Settings

_LINK_PREFIX = 31
T = TypeVar("T")
log = structlog.get_logger()


@dataclass
class Attached:
    """The network of one sandbox, in force."""

    slot: Slot
    resolver: Resolver | None
    is_open: bool = True


class Networks:
    """The networks of all sandboxes of one server."""

    def __init__(
        self,
        uplink: Uplink,
        operator_rules: tuple[Rule, ...],
        resolvers: Sequence[str],
        declarations: Declarations,
        ready_slots: int,
    ) -> None:
        """`operator_rules` are what PUBLIC reaches whatever is forbidden; `resolvers` what it asks for names.

        `declarations` are those of mode VPC. `ready_slots` are kept ready once one was used.
        """
        self._uplink = uplink
        self._operator_rules = operator_rules
        self._resolvers = resolvers
        self._declarations = declarations
        self._ready_slots = ready_slots
        self._ready: deque[Slot] = deque()
        self._refilling: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        self._attached: dict[int, Attached] = {}
        self._bridged: set[IPv4Address] = set()
        self._closed = False
        self._session_of: Callable[[str], str | None] = lambda _: None

    @property
    def lock(self) -> int:
        """As `Uplink.lock`: keepers hold it."""
        return self._uplink.lock

    async def check(self, network: Network) -> None:
        """NetworkUnavailableError, which says what mends it, if no sandbox can have that network now."""
        if network.mode is Mode.SANDBOX:
            return
        await self._open()
        if network.mode is Mode.VPC:
            self._subnet_of(self._declarations.present, network)

    def find_unusable(self, account_id: str, network: Network) -> list[str]:
        """The subnets and security groups that an account may not use."""
        return self._declarations.present.unusable(account_id, network.subnets, network.security_groups)

    def find_sessions(self, session_of: Callable[[str], str | None]) -> None:
        """From now on, what is logged of a sandbox says which session it is of."""
        self._session_of = session_of

    async def attach(self, network: Network, sandbox_id: str) -> Attached:
        """A slot for a new sandbox, its rules in force. NetworkUnavailableError if it cannot be had."""
        await self._open()
        egress, upstream, subnet = await self._plan(network)
        slot = await self._slot(subnet)
        try:
            return await self._serve(slot, sandbox_id, egress, await self._upstream(slot, upstream, subnet))
        except (FirewallError, OSError) as error:
            await self._give_back(slot)
            raise NetworkUnavailableError(f"no network could be made for a sandbox: {error}") from None
        except BaseException:
            await self._give_back(slot)
            raise

    async def adopt(self, network: Network, sandbox_id: str, link: Link, keeper: int) -> Attached:
        """The network of a sandbox that an earlier server started, its rules as they are now.

        NetworkUnavailableError if it is gone, or what it is of is not declared any more.
        """
        await self._open()
        egress, upstream, subnet = await self._plan(network)
        try:
            slot = await slots.adopt(link, keeper)
        except OSError as error:
            raise NetworkUnavailableError(f"the sandbox's network is gone: {error}") from None
        try:
            self._uplink.keep_link(link.number)
            self._bridged.add(link.address.ip)
            return await self._serve(slot, sandbox_id, egress, await self._upstream(slot, upstream, subnet))
        except BaseException as error:
            slot.close()
            if isinstance(error, FirewallError | OSError):
                raise NetworkUnavailableError(f"the sandbox's network cannot be taken over: {error}") from None
            raise

    async def detach(self, attached: Attached) -> None:
        """Take away the network of a sandbox that has ended; again is harmless."""
        if not attached.is_open:
            return
        attached.is_open = False
        self._attached.pop(id(attached), None)
        if attached.resolver is not None:
            await attached.resolver.close()
        await self._give_back(attached.slot)

    async def close(self, *, leave_running: bool) -> None:
        """Give up what is ready; `leave_running`: the networks of running sandboxes stay, without a resolver."""
        self._closed = True
        if self._refilling is not None:
            self._refilling.cancel()
            await asyncio.gather(self._refilling, return_exceptions=True)
        while self._ready:
            await self._give_back(self._ready.popleft())
        for attached in [*self._attached.values()]:
            attached.is_open = False
            if attached.resolver is not None:
                await attached.resolver.close()
            attached.slot.close()
        await self._uplink.close(wait=not leave_running)

    # What a network means

    async def _plan(self, network: Network) -> tuple[Egress, Sequence[str], Subnet | None]:
        if network.mode is Mode.PUBLIC:
            return public_egress(self._operator_rules, network.allow), self._resolvers or upstream_addresses(), None
        found = self._declarations.present
        subnet = self._subnet_of(found, network)
        egress = found.egress(subnet, network.security_groups)
        if subnet.bridge is not None:
            # On a bridge its packets do not pass the rules that keep them from the machine itself.
            egress = replace(egress, forbidden=egress.forbidden + await self._uplink.addresses())
        return egress, subnet.resolvers, subnet

    def _subnet_of(self, found: Declared, network: Network) -> Subnet:
        gone = [each for each in network.subnets if each not in found.subnets]
        gone += [each for each in network.security_groups if each not in found.groups]
        if gone:
            raise NetworkUnavailableError(
                f"{gone[0]} is not declared any more in the file that FUMEHOOD_NETWORKS_FILE names"
            )
        return found.subnets[network.subnets[0]]

    async def _upstream(self, slot: Slot, addresses: Sequence[str], subnet: Subnet | None) -> Upstream | None:
        if not addresses:
            return None
        # A private network's resolver is asked from within that network.
        return Upstream(addresses, self._uplink.namespace if subnet is None else slot.outer)

    async def _serve(self, slot: Slot, sandbox_id: str, egress: Egress, upstream: Upstream | None) -> Attached:
        await slot.enforce(egress, has_resolver=upstream is not None)
        resolver = None
        if upstream is not None:
            refusals = Refusals(sandbox_id, lambda sandbox: self._session_of(sandbox))
            resolver = Resolver(egress, upstream, _Learned(slot).add, refusals)
            await resolver.start(slot.udp, slot.tcp)
        attached = Attached(slot, resolver)
        self._attached[id(attached)] = attached
        return attached

    # Slots

    async def _open(self) -> None:
        async with self._opening:
            await self._uplink.open()

    async def _slot(self, subnet: Subnet | None) -> Slot:
        if subnet is None or subnet.cidr is not None:
            slot = self._ready.popleft() if self._ready else await _made(self._build())
            self._refill()
            return slot
        return await _made(self._build_in(subnet))

    async def _build(self) -> Slot:
        number, far, near = self._uplink.take_link()
        name = self._uplink.interface(number)
        link = Link(name, IPv4Interface((near, _LINK_PREFIX)), far, number)
        try:
            return await slots.build(link, self._uplink.namespace, IPv4Interface((far, _LINK_PREFIX)), None)
        except BaseException:
            self._uplink.free_link(number)
            raise

    async def _build_in(self, subnet: Subnet) -> Slot:
        if subnet.namespace is not None:
            return await self._build_in_namespace(subnet.namespace)
        assert subnet.bridge is not None and subnet.addresses is not None
        number, _, _ = self._uplink.take_link()
        try:
            address = self._free_address(subnet)
        except BaseException:
            self._uplink.free_link(number)
            raise
        link = Link(self._uplink.interface(number), address, subnet.gateway, number)
        try:
            return await slots.build(link, self._uplink.namespace, None, subnet.bridge)
        except BaseException:
            self._uplink.free_link(number)
            self._bridged.discard(address.ip)
            raise

    async def _build_in_namespace(self, name: str) -> Slot:
        number, far, near = self._uplink.take_link()
        try:
            namespace = namespaces.open_named(name)
            try:
                link = Link(self._uplink.interface(number), IPv4Interface((near, _LINK_PREFIX)), far, number)
                return await slots.build(link, namespace, IPv4Interface((far, _LINK_PREFIX)), None)
            finally:
                os.close(namespace)
        except BaseException:
            self._uplink.free_link(number)
            raise

    def _free_address(self, subnet: Subnet) -> IPv4Interface:
        assert subnet.addresses is not None
        for address in subnet.addresses.network.hosts():
            if address not in self._bridged and address != subnet.gateway:
                self._bridged.add(address)
                return IPv4Interface((address, subnet.addresses.network.prefixlen))
        raise NetworkUnavailableError(f"all addresses of {subnet.id} are in use")

    async def _give_back(self, slot: Slot) -> None:
        # What may still be in the slot, a sandbox's orphan, is cut off with this.
        with suppress(OSError):
            await slot.cut()
        slot.close()
        self._uplink.free_link(slot.link.number)
        self._bridged.discard(slot.link.address.ip)

    def _refill(self) -> None:
        if self._closed or (self._refilling is not None and not self._refilling.done()):
            return
        self._refilling = asyncio.ensure_future(self._fill())

    async def _fill(self) -> None:
        try:
            while len(self._ready) < self._ready_slots:
                self._ready.append(await _made(self._build()))
        except NetworkUnavailableError as error:
            log.warning("no network could be made ready", error=str(error))


def networks_of(settings: Settings, declarations: Declarations, folder: Path) -> Networks:
    """The networks that the settings and declarations describe, with their files in `folder`. ConfigurationError."""
    rules = _setting("PUBLIC_ALLOW", lambda: parse_rules(settings.public_allow.split(), ("tcp", "udp", "icmp")))
    resolvers = _setting("RESOLVERS", lambda: [str(ip_address(each)) for each in settings.resolvers.split()])
    given = settings.uplink_range
    sources = None if given is None else _setting("UPLINK_RANGE", lambda: IPv4Network(given))
    uplink = Uplink(folder, settings.uplink_namespace, settings.uplink_interface, sources, rules)
    return Networks(uplink, rules, resolvers, declarations, settings.network_slots)


def _setting(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except ValueError as error:
        raise ConfigurationError(f"{PREFIX}{name}: {error}") from None


class _Learned:
    """Opens in a slot's rules the addresses of names, and keeps them open as long as somebody asks for them."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._known: dict[tuple[str, str, Rule], float] = {}

    async def add(self, set_name: str, addresses: Collection[str], rules: Sequence[Rule], seconds: int) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        wanted = [(set_name, address, rule) for address in addresses for rule in rules]
        if all(self._known.get(each, 0.0) - now > seconds / 2 for each in wanted):
            return
        elements = firewall.learned_elements(set_name, addresses, rules, seconds)
        await firewall.apply(elements, self._slot.outer)
        self._known = {each: until for each, until in self._known.items() if until > now}
        self._known |= dict.fromkeys(wanted, now + seconds)


async def _made(making: Awaitable[Slot]) -> Slot:
    try:
        return await making
    except (OSError, FirewallError) as error:
        raise NetworkUnavailableError(f"no network could be made for a sandbox: {error}") from None
