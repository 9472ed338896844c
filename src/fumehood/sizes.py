"""Sizes of an interpreter's sandboxes, as its tags choose them within what the operator allows."""

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from fumehood.errors import InvalidRequestError
from fumehood.settings import GIB, MIB, Bytes, Settings

_PREFIX = "fumehood:"
# Each size of a sandbox costs files on the machine, so not every number of bytes is one.
_MEMORY_STEP_BYTES = 256 * MIB
_DISK_STEP_BYTES = GIB
_PROCESSES_STEP = 32
_BYTES = TypeAdapter[int](Bytes)


class _Size(NamedTuple):
    """One size: its default, the most that a tag may choose, and what that must be a multiple of."""

    name: str
    default: int
    most: int
    step: int
    is_bytes: bool


SIZE_TAGS = frozenset(f"{_PREFIX}{name}" for name in ("cpus", "memory", "disk", "processes"))
"""Tags whose values are sizes of an interpreter's sandboxes: `fumehood:memory` = `4GiB`."""


def chosen_sizes(tags: Mapping[str, str], settings: Settings) -> dict[str, int]:
    """What the tags choose, by the names of the members of `sandbox.contract.Sizes`; only what they choose.

    InvalidRequestError naming `tags` for what is no size, or more than the operator allows.
    """
    return {size.name: _checked(tag, tags[tag], size) for tag, size in _sizes(settings).items() if tag in tags}


def allowed_sizes(tags: Mapping[str, str], settings: Settings) -> dict[str, int]:
    """As `chosen_sizes`, for tags checked once: of what the operator has forbidden since, the most that is allowed."""
    chosen: dict[str, int] = {}
    for tag, size in _sizes(settings).items():
        if tag in tags:
            try:
                chosen[size.name] = _checked(tag, tags[tag], size)
            except InvalidRequestError:
                chosen[size.name] = size.most
    return chosen


def _sizes(settings: Settings) -> dict[str, _Size]:
    def size(name: str, default: int, most: int | None, step: int, is_bytes: bool) -> _Size:
        return _Size(name, default, default if most is None else most, step, is_bytes)

    cpus, memory = settings.sandbox_cpus, settings.sandbox_memory_bytes
    disk, processes = settings.sandbox_disk_bytes, settings.sandbox_processes
    return {
        f"{_PREFIX}cpus": size("cpus", cpus, settings.largest_sandbox_cpus, 1, False),
        f"{_PREFIX}memory": size(
            "memory_bytes", memory, settings.largest_sandbox_memory_bytes, _MEMORY_STEP_BYTES, True
        ),
        f"{_PREFIX}disk": size("disk_bytes", disk, settings.largest_sandbox_disk_bytes, _DISK_STEP_BYTES, True),
        f"{_PREFIX}processes": size(
            "processes_max", processes, settings.largest_sandbox_processes, _PROCESSES_STEP, False
        ),
    }


def _checked(tag: str, value: str, size: _Size) -> int:
    number = _number(value, size)
    if number is not None and (number == size.default or (0 < number <= size.most and number % size.step == 0)):
        return number
    examples = " such as 4GiB or 512MiB" if size.is_bytes else ""
    raise InvalidRequestError.of_field(
        "tags",
        f"{tag} must be a multiple of {_told(size.step, size)}{examples}, at most {_told(size.most, size)} on this "
        f"server, or its default of {_told(size.default, size)}; not {value[:64]!r}",
    )


def _number(value: str, size: _Size) -> int | None:
    if value.isascii() and value.isdecimal() and len(value) <= 15:
        return int(value)
    if not size.is_bytes:
        return None
    try:
        return _BYTES.validate_python(value)
    except ValidationError:
        return None


def _told(number: int, size: _Size) -> str:
    if not size.is_bytes:
        return str(number)
    if number % GIB == 0:
        return f"{number // GIB}GiB"
    return f"{number // MIB}MiB" if number % MIB == 0 else str(number)
