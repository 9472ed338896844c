"""Where the packets of all slots leave this machine: its table of rules, its addresses for them, its forwarding."""

import asyncio
import fcntl
import hashlib
import os
import socket
import subprocess
from contextlib import suppress
from importlib import resources
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from fumehood.network import firewall, namespaces, netlink
from fumehood.network.policy import Rule

_LOCK_SECONDS = 10.0
_SENTINEL_SECONDS = 10.0
_POLL_SECONDS = 0.02
_CARRIER_GRADE = IPv4Network("100.64.0.0/10")
_RANGE_BITS = 20
_RUN = Path("/run/fumehood")
_CONF = Path("/proc/sys/net/ipv4/conf")


class NetworkUnavailableError(Exception):
    """This machine cannot give a sandbox a network; the message says why and what mends it."""


class Uplink:
    """The machine's side of the slots of one data folder. Made when the first slot is."""

    def __init__(
        self,
        folder: Path,
        namespace: str | None,
        interface: str | None,
        sources: IPv4Network | None,
        allowed: tuple[Rule, ...],
    ) -> None:
        """Slots' packets leave through the namespace of that name, this process's own if None.

        `interface` is the only one that they may leave by; None: as routes lead. `sources` are the addresses of the
        slots' links; None: a range of carrier-grade NAT's that nothing here uses. `allowed` is what slots may reach of
        the machine itself.
        """
        key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:6]
        self.prefix = f"{firewall.INTERFACES}{key}-"
        self.table = f"fumehood_{key}"
        self._key = key
        self._folder = folder
        self._namespace_name = namespace
        self._interface = interface
        self._sources = sources
        self._allowed = allowed
        self._namespace: int | None = None
        self._lock: int | None = None
        self._sentinel: subprocess.Popen[bytes] | None = None
        self._taken: set[int] = set()

    @property
    def namespace(self) -> int:
        """A descriptor of the namespace through which packets leave."""
        assert self._namespace is not None
        return self._namespace

    @property
    def lock(self) -> int:
        """A descriptor that whoever needs the machine's side holds open: it stays until all of them are closed."""
        assert self._lock is not None
        return self._lock

    async def open(self) -> None:
        """Have it ready. NetworkUnavailableError if this machine cannot."""
        if self._namespace is not None:
            return
        try:
            namespace = await namespaces.run(lambda _: self._open_namespace())
            try:
                await self._hold()
                await self._start_sentinel(namespace)
                await namespaces.run(lambda _: self._set_up(namespace), namespace)
            except BaseException:
                os.close(namespace)
                self._let_go()
                raise
        except firewall.FirewallError as error:
            raise NetworkUnavailableError(f"{error}: run 'make setup'") from None
        except (OSError, TimeoutError) as error:
            raise NetworkUnavailableError(f"no network can be made for sandboxes: {error}") from None
        self._namespace = namespace

    async def close(self, *, wait: bool) -> None:
        """Need it no more. `wait`: until it is taken away, which it is if nobody else needs it."""
        self._let_go()
        if self._namespace is not None:
            os.close(self._namespace)
            self._namespace = None
        sentinel = self._sentinel
        if sentinel is not None and wait:
            with suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(sentinel.wait, _SENTINEL_SECONDS)

    async def addresses(self) -> tuple[IPv4Network, ...]:
        """The machine's own addresses, each as a network of one."""
        return await namespaces.run(lambda _: _own_addresses(), self.namespace)

    def take_link(self) -> tuple[int, IPv4Address, IPv4Address]:
        """A free link: its number, the machine's address on it and the slot's."""
        assert self._sources is not None
        for number in range(self._sources.num_addresses // 2):
            if number not in self._taken:
                self._taken.add(number)
                return number, self._sources[2 * number], self._sources[2 * number + 1]
        raise NetworkUnavailableError(
            f"all addresses of {self._sources} are in use: name a larger range in FUMEHOOD_UPLINK_RANGE"
        )

    def keep_link(self, number: int) -> None:
        """Have a link that an earlier server gave out count as taken."""
        self._taken.add(number)

    def free_link(self, number: int) -> None:
        """Have a link free for another slot."""
        self._taken.discard(number)

    def interface(self, number: int) -> str:
        """The name of the machine's end of a link."""
        return f"{self.prefix}{number}"

    def _open_namespace(self) -> int:
        if self._namespace_name is None:
            return namespaces.open_own()
        try:
            return namespaces.open_named(self._namespace_name)
        except OSError:
            raise NetworkUnavailableError(
                f"there is no network namespace {self._namespace_name!r}, which FUMEHOOD_UPLINK_NAMESPACE names"
            ) from None

    async def _hold(self) -> None:
        await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        async with asyncio.timeout(_LOCK_SECONDS):
            # It is taken only for the moment in which an earlier server's table is taken away.
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return
                await asyncio.sleep(_POLL_SECONDS)

    def _let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def _start_sentinel(self, namespace: int) -> None:
        script = resources.files("fumehood.network").joinpath("sentinel.sh")
        arguments = ["bash", str(script), str(self._folder), self.table, str(_forwarding(namespace))]

        def start(_: namespaces.Thread) -> subprocess.Popen[bytes]:
            _RUN.mkdir(mode=0o700, exist_ok=True)
            sentinel = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            assert sentinel.stdout is not None
            # Until it waits, or has ended because another one does.
            sentinel.stdout.read()
            sentinel.stdout.close()
            return sentinel

        self._sentinel = await namespaces.run(start, namespace)

    def _set_up(self, namespace: int) -> None:
        with netlink.opened() as ip:
            links = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
            bridges = {link.get_attr("IFLA_IFNAME") for link in ip.get_links(kind="bridge")}
            found = ip.get_routes(family=socket.AF_INET)
            routes = [(_destination(route), links.get(route.get_attr("RTA_OIF"), "")) for route in found]
        # Of sandboxes that run on since an earlier server, or are just going.
        self._taken |= {int(name.removeprefix(self.prefix)) for name in links.values() if name.startswith(self.prefix)}
        others = [(network, name) for network, name in routes if not name.startswith(self.prefix)]
        if self._interface is not None and self._interface not in links.values():
            raise NetworkUnavailableError(
                f"there is no interface {self._interface!r}, which FUMEHOOD_UPLINK_INTERFACE names"
            )
        self._sources = self._sources or self._free_range([network for network, _ in others if network is not None])
        leads_out = {name for _, name in others if name not in ("", "lo") and not name.startswith(firewall.INTERFACES)}
        listed = _forwarding(namespace)
        ours = {*listed.read_text().splitlines()} if listed.exists() else set[str]()
        off = {str(file) for name in leads_out if (file := _CONF / name / "forwarding").read_text().strip() == "0"}
        firewall.load(
            firewall.uplink_rules(
                *(self.table, self.prefix, self._sources, self._interface, self._allowed),
                {name: name in bridges for name in sorted(Path(file).parent.name for file in ours | off)},
            )
        )
        if off:
            listed.write_text("".join(f"{file}\n" for file in sorted(ours | off)))
            for file in off:
                Path(file).write_text("1")

    def _free_range(self, used: list[IPv4Network]) -> IPv4Network:
        candidates = [*_CARRIER_GRADE.subnets(new_prefix=_RANGE_BITS)]
        first = int(self._key, 16) % len(candidates)
        for candidate in candidates[first:] + candidates[:first]:
            if not any(candidate.overlaps(network) for network in used if network.prefixlen > 0):
                return candidate
        raise NetworkUnavailableError(
            f"all of {_CARRIER_GRADE} is in use here: name a free range in FUMEHOOD_UPLINK_RANGE"
        )


def _forwarding(namespace: int) -> Path:
    """The file that says what was switched on in a namespace."""
    return _RUN / f"forwarding-{os.fstat(namespace).st_ino}"


def _destination(route: Any) -> IPv4Network | None:
    address = route.get_attr("RTA_DST")
    return None if address is None else IPv4Network(f"{address}/{route['dst_len']}", strict=False)


def _own_addresses() -> tuple[IPv4Network, ...]:
    with netlink.opened() as ip:
        return tuple(IPv4Network(each.get_attr("IFA_LOCAL")) for each in ip.get_addr(family=socket.AF_INET))
