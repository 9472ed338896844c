"""The networks and groups that the operator declares for mode VPC, in a TOML file.

[subnets.subnet-0a1b2c3d]
namespace = "private"            # or bridge = "br0", or cidr = "10.20.0.0/16"
resolvers = ["10.20.0.53"]
accounts = ["000000000000"]      # who may use it; left out: everybody

[security_groups.sg-0a1b2c3d]
accounts = ["000000000000"]
egress = [{ to = "10.20.0.5", ports = "5432" }, { to = ".internal.example", protocol = "tcp" }]
"""

import re
import tomllib
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from pathlib import Path
from typing import Any, Self

from fumehood.errors import ConfigurationError
from fumehood.identity.followed_file import Closed, FollowedFile
from fumehood.network.policy import NEVER, Egress, Rule, RuleError, parse_rule

_MAX_BYTES = 4 * 1024 * 1024
_SUBNET = re.compile(r"subnet-[0-9a-zA-Z]{8,17}")
_GROUP = re.compile(r"sg-[0-9a-zA-Z]{8,17}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_PROTOCOLS = {"tcp": ("tcp",), "udp": ("udp",), "icmp": ("icmp",), "all": ("tcp", "udp", "icmp")}


class DeclarationError(ConfigurationError):
    """The file does not say what it should; the message says where and what would be right."""


@dataclass(frozen=True)
class Subnet:
    """A network that sandboxes may be put in. Exactly one of `namespace`, `bridge` and `cidr` says what it is."""

    id: str
    namespace: str | None = None
    """One of `ip netns`: its own addresses, and what it leads on to."""
    bridge: str | None = None
    """One of the machine, with `addresses` for sandboxes in it, and perhaps a `gateway`."""
    cidr: IPv4Network | None = None
    """What the machine's own routes lead to."""
    addresses: IPv4Interface | None = None
    gateway: IPv4Address | None = None
    resolvers: tuple[str, ...] = ()
    accounts: frozenset[str] | None = None


@dataclass(frozen=True)
class Group:
    """What sandboxes of a security group may reach."""

    id: str
    egress: tuple[Rule, ...]
    accounts: frozenset[str] | None = None


@dataclass(frozen=True)
class Declared:
    """All that the file declares."""

    subnets: dict[str, Subnet]
    groups: dict[str, Group]

    def unusable(self, account_id: str, subnets: tuple[str, ...], groups: tuple[str, ...]) -> list[str]:
        """Those of the ids that the account may not use, or that are not declared: it cannot tell which."""
        strange = [each for each in subnets if not _may_use(self.subnets.get(each), account_id)]
        return strange + [each for each in groups if not _may_use(self.groups.get(each), account_id)]

    def egress(self, subnet: Subnet, group_ids: tuple[str, ...]) -> Egress:
        """What a sandbox there with these groups may reach: all that any of them allows. KeyError if one is gone."""
        rules = tuple(rule for each in group_ids for rule in self.groups[each].egress)
        return Egress(forbidden=NEVER, open=rules, within=subnet.cidr)


class Declarations:
    """What is declared. Follows the file: a change holds within a second, a broken one changes nothing."""

    def __init__(self, file: FollowedFile[Declared] | None) -> None:
        self.file = file

    @classmethod
    def load(cls, path: Path | None) -> Self:
        """Read the file; without one nothing is declared. ConfigurationError if it is missing, malformed or others'."""
        if path is None:
            return cls(None)
        return cls(
            FollowedFile(path, "networks file", lambda text: _parse(text, path), _MAX_BYTES, closed=Closed.TO_WRITING)
        )

    @property
    def present(self) -> Declared:
        """What holds now."""
        return _NOTHING if self.file is None else self.file.value


_NOTHING = Declared({}, {})


def _parse(text: str, path: Path) -> Declared:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DeclarationError(f"{path} is no TOML: {error}") from None
    reader = _Reader(path)
    reader.only(values, "the file", {"subnets", "security_groups"})
    subnets = {key: reader.subnet(key, value) for key, value in reader.table(values, "subnets").items()}
    groups = {key: reader.group(key, value) for key, value in reader.table(values, "security_groups").items()}
    return Declared(subnets, groups)


def _may_use(declared: Subnet | Group | None, account_id: str) -> bool:
    return declared is not None and (declared.accounts is None or account_id in declared.accounts)


class _Reader:
    """Reads values of the file, and says where one is wrong."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def _wrong(self, where: str, what: str) -> DeclarationError:
        return DeclarationError(f"{self._file}: {where}: {what}")

    def only(self, values: dict[str, Any], where: str, known: set[str]) -> None:
        strange = sorted(values.keys() - known)
        if strange:
            raise self._wrong(where, f"has no {strange[0]!r}; there are {', '.join(sorted(known))}")

    def table(self, values: dict[str, Any], name: str) -> dict[str, Any]:
        table = values.get(name, {})
        if not isinstance(table, dict) or not all(isinstance(each, dict) for each in table.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            raise self._wrong(name, f"must be tables, as in [{name}.some-id]")
        return table  # pyright: ignore[reportUnknownVariableType]

    def subnet(self, key: str, values: dict[str, Any]) -> Subnet:
        if not _SUBNET.fullmatch(key):
            raise self._wrong(key, "an id of a subnet is subnet- and 8 to 17 letters and digits")
        names = {"namespace", "bridge", "cidr", "addresses", "gateway", "resolvers", "accounts"}
        self.only(values, key, names)
        if len({"namespace", "bridge", "cidr"} & values.keys()) != 1:
            raise self._wrong(key, "must have exactly one of namespace, bridge and cidr")
        if ("addresses" in values) != ("bridge" in values) or ("gateway" in values and "bridge" not in values):
            raise self._wrong(
                key, "a bridge needs addresses for sandboxes, such as 10.20.0.128/25, and only it has them"
            )
        resolvers = tuple(
            str(self._parsed(key, "resolvers", ip_address, each)) for each in self._texts(key, values, "resolvers")
        )
        subnet = Subnet(
            key,
            self._text(key, values, "namespace"),
            self._text(key, values, "bridge"),
            resolvers=resolvers,
            accounts=self._accounts(key, values),
        )
        parse = partial(self._parsed, key)
        if "cidr" in values:
            return replace(subnet, cidr=parse("cidr", IPv4Network, values["cidr"]))
        if "bridge" in values:
            addresses = parse("addresses", IPv4Interface, values["addresses"])
            gateway = parse("gateway", IPv4Address, values["gateway"]) if "gateway" in values else None
            return replace(subnet, addresses=addresses, gateway=gateway)
        return subnet

    def group(self, key: str, values: dict[str, Any]) -> Group:
        if not _GROUP.fullmatch(key):
            raise self._wrong(key, "an id of a security group is sg- and 8 to 17 letters and digits")
        self.only(values, key, {"egress", "accounts"})
        rules = values.get("egress", [])
        if not isinstance(rules, list) or not all(isinstance(each, dict) for each in rules):  # pyright: ignore[reportUnknownVariableType]
            raise self._wrong(key, 'egress must be a list such as [{ to = "10.20.0.5", ports = "5432" }]')
        return Group(key, tuple(self._rule(key, each) for each in rules), self._accounts(key, values))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]

    def _rule(self, key: str, values: dict[str, Any]) -> Rule:
        self.only(values, key, {"to", "ports", "protocol"})
        to, protocol = self._text(key, values, "to"), values.get("protocol", "tcp")
        if to is None or ":" in to or protocol not in _PROTOCOLS:
            raise self._wrong(key, f"a rule has `to`, a CIDR or domain, and a protocol of {', '.join(_PROTOCOLS)}")
        ports = values.get("ports")
        try:
            return parse_rule(to if ports is None else f"{to}:{ports}", _PROTOCOLS[protocol])
        except RuleError as error:
            raise self._wrong(key, str(error)) from None

    def _accounts(self, key: str, values: dict[str, Any]) -> frozenset[str] | None:
        if "accounts" not in values:
            return None
        accounts = self._texts(key, values, "accounts")
        if not all(_ACCOUNT.fullmatch(each) for each in accounts):
            raise self._wrong(key, "accounts must be a list of ids of twelve digits")
        return frozenset(accounts)

    def _texts(self, key: str, values: dict[str, Any], name: str) -> list[str]:
        texts = values.get(name, [])
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):  # pyright: ignore[reportUnknownVariableType]
            raise self._wrong(key, f"{name} must be a list of texts")
        return texts  # pyright: ignore[reportUnknownVariableType]

    def _text(self, key: str, values: dict[str, Any], name: str) -> str | None:
        text = values.get(name)
        if text is not None and (not isinstance(text, str) or not text):
            raise self._wrong(key, f"{name} must be a text")
        return text

    def _parsed(self, key: str, name: str, parse: Any, value: object) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            raise self._wrong(key, f"{name}: {error}") from None
