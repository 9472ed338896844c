"""Changes to the credentials file, as `fumehood principals` makes them: one at a time, whole, and its comments kept."""

import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from fumehood import clock
from fumehood.errors import ConfigurationError
from fumehood.file_lock import file_lock
from fumehood.identity.principals import Principals, Profile, new_key, parse_profiles

_LOCK_SECONDS = 30.0
_HEADING = re.compile(r"\[(?P<name>.+)\]")
_OPTION = re.compile(r"(?P<indent>\s*)(?P<key>[^\s=:#;\[][^=:]*?)\s*[=:]")
Lines = list[str]


@dataclass(frozen=True)
class Key:
    """A new key pair, which is shown once: what a client's own credentials file needs."""

    name: str
    account_id: str
    access_key_id: str
    secret_access_key: str

    @property
    def lines(self) -> Lines:
        """The profile, for AWS's clients."""
        return [
            f"[{self.name}]",
            f"aws_access_key_id = {self.access_key_id}",
            f"aws_secret_access_key = {self.secret_access_key}",
            f"aws_account_id = {self.account_id}",
        ]

    def __repr__(self) -> str:
        return f"Key({self.name!r}, {self.access_key_id!r})"


def add(path: Path, name: str, account_id: str, policies: tuple[str, ...] | None) -> Key:
    """Add a principal with a new key. ConfigurationError if there is one of that name, or a value is malformed."""
    key = Key(name, account_id, *new_key())

    def change(lines: Lines, profiles: Mapping[str, Profile]) -> Lines:
        if name in profiles:
            raise ConfigurationError(
                f"There is a principal {name!r} already; `fumehood principals rotate` renews its key."
            )
        attached = [] if policies is None else [f"fumehood_policies = {', '.join(policies)}"]
        gap = [""] if lines and lines[-1].strip() else []
        return [*lines, *gap, *key.lines, *attached]

    _edit(path, name, change)
    return key


def set_disabled(path: Path, name: str, is_disabled: bool) -> None:
    """Have a principal's keys refused, or accepted again. ConfigurationError if there is no such principal."""
    values = {"fumehood_disabled": "true" if is_disabled else None}
    _edit(path, name, lambda lines, profiles: _with_values(lines, profiles, name, values))


def remove(path: Path, name: str) -> None:
    """Take a principal's profile out of the file, with the comments in it.

    ConfigurationError if there is no such principal, and for the root. Comments before its heading and after its last
    value stay, for they may be about something else.
    """

    def change(lines: Lines, profiles: Mapping[str, Profile]) -> Lines:
        if _found(profiles, name).record.principal.is_administrator:
            raise ConfigurationError(
                f"{name} is the only administrator and cannot be removed; "
                "`fumehood principals disable` has its keys refused."
            )
        begin, end = _span(lines, name)
        end = _options(lines, begin, end)[-1] + 1
        # What parted it from what is before it is not needed twice.
        if begin > 0 and not lines[begin - 1].strip() and (end == len(lines) or not lines[end].strip()):
            begin -= 1
        return [*lines[:begin], *lines[end:]]

    _edit(path, name, change)


def rotate(path: Path, name: str, overlap_seconds: int) -> Key:
    """Give a principal a new key. The one that it has is good for `overlap_seconds` more, earlier ones end now.

    ConfigurationError if there is no such principal.
    """
    key_id, secret = new_key()
    owner: list[str] = []

    def change(lines: Lines, profiles: Mapping[str, Profile]) -> Lines:
        record = _found(profiles, name).record
        owner.append(record.principal.account_id)
        until = clock.now() + timedelta(seconds=overlap_seconds)
        kept = overlap_seconds > 0
        return _with_values(
            lines,
            profiles,
            name,
            {
                "aws_access_key_id": key_id,
                "aws_secret_access_key": secret,
                "fumehood_previous_access_key_id": record.principal.access_key_id if kept else None,
                "fumehood_previous_secret_access_key": record.secret_access_key if kept else None,
                "fumehood_previous_until": until.strftime("%Y-%m-%dT%H:%M:%SZ") if kept else None,
            },
        )

    _edit(path, name, change)
    return Key(name, owner[0], key_id, secret)


def _edit(path: Path, name: str, change: Callable[[Lines, Mapping[str, Profile]], Lines]) -> None:
    """Replace the file by its lines as `change` gives them, in which only the principal `name` may differ."""
    # A link is followed: what it leads to is what the server reads.
    path = path.resolve()
    problem = f"Another run of this command holds {path}; try again."
    with file_lock(path.with_name(f"{path.name}.lock"), _LOCK_SECONDS, problem):
        Principals.load(path)  # who can read it, and how large it is
        text = path.read_text()
        before = parse_profiles(path, text)
        changed = "\n".join([*change(text.removesuffix("\n").split("\n"), before), ""])
        after = parse_profiles(path, changed)
        if {**after, name: None} != {**before, name: None}:
            raise ConfigurationError(f"{path} is written in a way that cannot be changed here: change it by hand.")
        _replace(path, changed)


def _replace(path: Path, text: str) -> None:
    status = path.stat()
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            if os.geteuid() == 0:
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _found(profiles: Mapping[str, Profile], name: str) -> Profile:
    if name not in profiles:
        raise ConfigurationError(f"There is no principal {name!r}; there are: {', '.join(profiles)}.")
    return profiles[name]


def _with_values(lines: Lines, profiles: Mapping[str, Profile], name: str, values: Mapping[str, str | None]) -> Lines:
    """The lines with these values in the profile; None removes one. All other lines stay as they are."""
    _found(profiles, name)
    begin, end = _span(lines, name)
    options = _options(lines, begin, end)
    written = dict(values)
    changed: Lines = []
    for number in range(begin + 1, end):
        found = _OPTION.match(lines[number])
        key = found["key"].lower() if found is not None else ""
        if found is None or key not in values:
            changed.append(lines[number])
        elif (value := written.pop(key)) is not None:
            changed.append(f"{found['indent']}{key} = {value}")
        if number == options[-1]:
            indent = found["indent"] if found is not None else ""
            changed += [f"{indent}{key} = {value}" for key, value in written.items() if value is not None]
    return [*lines[: begin + 1], *changed, *lines[end:]]


def _span(lines: Lines, name: str) -> tuple[int, int]:
    """Where a profile's heading is, and where the next one's or the end."""
    begin = next(number for number, line in enumerate(lines) if _heading(line) == name)
    return begin, next((number for number in range(begin + 1, len(lines)) if _heading(lines[number])), len(lines))


def _options(lines: Lines, begin: int, end: int) -> list[int]:
    """The lines of a profile that have its values."""
    return [number for number in range(begin + 1, end) if _OPTION.match(lines[number])]


def _heading(line: str) -> str | None:
    found = _HEADING.match(line.strip())
    return None if found is None else found["name"]
