"""Every setting, typed, with its unit in the name. Each can be given as an environment variable: FUMEHOOD_<NAME>."""

import difflib
import os
import re
from collections.abc import Iterable
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from fumehood.errors import ConfigurationError

MIB = 1024 * 1024
GIB = 1024 * MIB
PREFIX = "FUMEHOOD_"
_RENAMED = {f"{PREFIX}SANDBOX_PROCESSES_MAX": f"{PREFIX}SANDBOX_PROCESSES"}
_SIZE = re.compile(r"([0-9]{1,15})([KMGT])(?:iB)?", re.IGNORECASE)
_UNITS = {"K": 1024, "M": MIB, "G": GIB, "T": 1024 * GIB}


_IN_ORDER = (
    (
        "request_max_bytes",
        "unverified_bytes_max",
        "the largest requests of clients that sign as boto3 does could never be taken",
    ),
    (
        "snapshots_max_bytes",
        "images_max_bytes",
        "no account's snapshots could have so much of what all images may have together",
    ),
    *(
        (f"sandbox_{size}", f"largest_sandbox_{size}", "a sandbox has more by default than a tag may choose")
        for size in ("cpus", "memory_bytes", "disk_bytes", "processes")
    ),
)
"""Settings of which the first must not be more than the second, where both are there; and why."""


def _from_text(value: object) -> object:
    """Bytes from text such as `8G`; what has no unit is left for pydantic to check."""
    if not isinstance(value, str) or value.strip().isdecimal():
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise PydanticCustomError(
            "size", "Input should be a number of bytes, or of K, M, G or T of 1024 each, such as 8G or 512MiB"
        )
    return int(found[1]) * _UNITS[found[2].upper()]


Bytes = Annotated[int, BeforeValidator(_from_text), Field(ge=0)]
"""A size. As text it may have a unit: `8G` and `8GiB` are 8 times 1024 cubed. `8GB` is refused: it could be either."""


class Quotas(StrEnum):
    """Tables of rates."""

    NONE = "none"
    AWS = "aws"


Rate = Annotated[float | None, Field(ge=0, le=1e6, allow_inf_nan=False)]
"""So many in a second; 0 is without a limit."""


def _rate(operation: str, aws: int) -> Any:
    return Field(
        default=None, description=f"{operation} in an account, so often in a second; 0 without limit; AWS's is {aws}"
    )


def _default_data_folder() -> Path:
    if os.geteuid() == 0:
        return Path("/var/lib/fumehood")
    return Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "fumehood"


class Settings(BaseSettings):
    """The server's settings. Defaults are those of a single machine that serves its own user."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8800, ge=0, le=65535, description="port to listen on")
    public_url: str | None = Field(
        default=None, description="what clients are told to connect to, where it is not host and port"
    )
    tls_certificate: Path | None = Field(default=None, description="PEM file with the server's certificate chain")
    tls_key: Path | None = Field(default=None, description="PEM file with the certificate's private key")
    insecure: bool = Field(default=False, description="allow listening beyond loopback without TLS")
    data: Path = Field(
        default_factory=_default_data_folder,
        description="folder for database, keys, templates, sandboxes; /var/lib/fumehood, or without root "
        "fumehood in $XDG_DATA_HOME, ~/.local/share where that is not set",
    )
    database_url: str | None = Field(
        default=None, description="SQLAlchemy URL; the default is SQLite in the data folder"
    )

    region: str = Field(default="us-east-1", description="region in ARNs and signatures")
    account_id: str = Field(default="000000000000", pattern="^[0-9]{12}$", description="account of the first principal")
    policies_file: Path | None = Field(
        default=None, description="JSON file of principals' policies; policies.json in the data folder, if not given"
    )
    s3_endpoint_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^\s/?#@]+/?$",
        description="where roles with credentials of your own find S3; AWS, if not given",
    )
    s3_region: str | None = Field(default=None, description="region of that S3; FUMEHOOD_REGION, if not given")
    s3_path_style: bool = Field(
        default=False, description="name buckets in that S3's paths, not its host: for most that are not AWS's"
    )
    s3_ca_bundle: Path | None = Field(
        default=None,
        description="PEM file of the authorities whose certificate that S3 has; the system's, if not given",
    )
    s3_embedded: bool = Field(
        default=False, description="start fumehood's own S3 with the server, not only when a role first uses it"
    )
    roles_file: Path | None = Field(
        default=None, description="JSON file of the execution roles; roles.json in the data folder, if not given"
    )
    secrets_folder: Path | None = Field(
        default=None,
        description="folder of the secrets that certificates are in, a folder for each account in it; secrets in the "
        "data folder, if not given",
    )
    filesystems_file: Path | None = Field(
        default=None,
        description="JSON file of the folders that sessions may mount; filesystems.json in the data folder, if not "
        "given",
    )

    clock_skew_seconds: int = Field(default=300, ge=1, description="how far a signature's date may be from now")
    request_max_bytes: Bytes = Field(
        default=136 * MIB, description="largest request body: 100 MB of payload in base64, and its frame"
    )
    unverified_bytes_max: Bytes = Field(
        default=GIB,
        description="bytes held at once for requests whose signature is not verified yet, and as many for others that "
        "still come in",
    )
    request_body_timeout_seconds: int = Field(default=120, ge=1, description="longest wait for a request's body")

    template: str = Field(default="standard", description="template that sessions start from")
    template_max_bytes: Bytes = Field(
        default=24 * GIB, ge=32 * MIB, description="disk for making a template of one's own, all that it takes included"
    )
    session_timeout_seconds: int = Field(
        default=900, ge=1, le=28_800, description="a session's life where the request names none"
    )
    sessions_max: int = Field(default=1_000, ge=0, description="active sessions in an account")
    interpreters_max: int = Field(default=1_000, ge=0, description="custom interpreters in an account")
    quotas: Quotas = Field(
        default=Quotas.NONE,
        description="how often operations may be called: none is as often as can be, aws is AWS's table; each of the "
        "following overrides it for one operation",
    )
    create_code_interpreter_a_second: Rate = _rate("CreateCodeInterpreter", 5)
    delete_code_interpreter_a_second: Rate = _rate("DeleteCodeInterpreter", 5)
    get_code_interpreter_a_second: Rate = _rate("GetCodeInterpreter", 30)
    list_code_interpreters_a_second: Rate = _rate("ListCodeInterpreters", 30)
    tag_resource_a_second: Rate = _rate("TagResource", 5)
    untag_resource_a_second: Rate = _rate("UntagResource", 5)
    list_tags_for_resource_a_second: Rate = _rate("ListTagsForResource", 5)
    start_code_interpreter_session_a_second: Rate = _rate("StartCodeInterpreterSession", 30)
    get_code_interpreter_session_a_second: Rate = _rate("GetCodeInterpreterSession", 30)
    list_code_interpreter_sessions_a_second: Rate = _rate("ListCodeInterpreterSessions", 30)
    stop_code_interpreter_session_a_second: Rate = _rate("StopCodeInterpreterSession", 30)
    invoke_code_interpreter_a_second: Rate = _rate("InvokeCodeInterpreter", 30)
    terminated_session_retention_seconds: int = Field(
        default=30 * 86_400, ge=0, description="how long ended sessions stay listed"
    )
    call_timeout_seconds: int = Field(default=900, ge=1, description="longest synchronous tool call")
    task_timeout_seconds: int = Field(default=28_800, ge=1, description="longest asynchronous command")
    keep_alive_seconds: float = Field(
        default=5.0, gt=0, description="how often a running call's stream carries a keep-alive frame"
    )
    call_memory_seconds: int = Field(
        default=300, ge=0, description="how long a finished call's answer is kept for a client that repeats it"
    )
    call_bytes_max: Bytes | None = Field(
        default=None,
        ge=256 * MIB,
        description="memory of the server's that calls may hold at once, requests and answers; an eighth of the "
        "machine's and at least 1 GiB, if not given",
    )
    images_as_links: bool = Field(
        default=False,
        description="give figures as links to files of the session: some clients print an image's bytes at their model",
    )

    sandbox_cpus: int = Field(default=2, ge=1, description="virtual CPUs of a sandbox")
    sandbox_memory_bytes: Bytes = Field(default=8 * GIB, ge=256 * MIB, description="memory of a sandbox")
    sandbox_disk_bytes: Bytes = Field(default=10 * GIB, ge=64 * MIB, description="writable disk of a sandbox")
    sandbox_processes: int = Field(default=1_024, ge=16, description="processes and threads that user code may have")
    largest_sandbox_cpus: int | None = Field(
        default=None, ge=1, description="virtual CPUs that an interpreter's tag may choose; the default's, if not given"
    )
    largest_sandbox_memory_bytes: Bytes | None = Field(
        default=None, description="memory that an interpreter's tag may choose; the default's, if not given"
    )
    largest_sandbox_disk_bytes: Bytes | None = Field(
        default=None, description="disk that an interpreter's tag may choose; the default's, if not given"
    )
    largest_sandbox_processes: int | None = Field(
        default=None, ge=1, description="processes that an interpreter's tag may choose; the default's, if not given"
    )
    sandbox_start_timeout_seconds: float = Field(
        default=60.0, gt=0, description="longest wait for a sandbox to be ready"
    )
    pool_min: int = Field(
        default=2,
        ge=0,
        description="sandboxes of the default template that are ready before anybody asks; fewer, where "
        "FUMEHOOD_POOL_MAX is less than this default",
    )
    pool_max: int = Field(
        default=8, ge=0, description="sandboxes that are ready at most, however many were asked for lately; 0 for none"
    )
    pool_blanks: int = Field(
        default=1,
        ge=0,
        description=(
            "sandboxes that are made but have no state yet, for starts that find none ready and for wakes; "
            "0, and where the pool has none, for none"
        ),
    )
    pool_life_seconds: float = Field(
        default=600.0, ge=10, description="how long a ready sandbox outlives a server that was killed"
    )
    memory_bytes: Bytes | None = Field(
        default=None,
        description="memory of all sandboxes together; the machine's, less a tenth and at least 1 GiB, if not given",
    )
    disk_reserve_bytes: Bytes = Field(
        default=2 * GIB,
        description="disk that sandboxes leave free for the database and all else; below half of it sessions are ended",
    )
    keep_sessions: bool = Field(
        default=False,
        description="leave sessions running when the server is told to end, for the next one on the same data folder",
    )
    hibernate_after_seconds: float = Field(
        default=300, ge=0, description="idle time after which a session is hibernated, its memory freed; 0 for never"
    )
    hibernate_with_tasks: bool = Field(default=False, description="hibernate idle sessions also while a task runs")
    hibernate_with_busy_processes: bool = Field(
        default=False, description="hibernate idle sessions also while their processes use the processor"
    )
    hibernate_with_connections: bool = Field(
        default=False, description="hibernate idle sessions also while they have connections to outside"
    )
    images_max_bytes: Bytes = Field(
        default=20 * GIB, description="disk for images of hibernated sessions and snapshots together"
    )
    snapshot_retention_seconds: int = Field(
        default=7 * 86_400, ge=60, description="how long a snapshot is kept where the request names no time"
    )
    snapshots_max: int = Field(default=1_000, ge=0, description="snapshots in an account")
    snapshots_max_bytes: Bytes | None = Field(
        default=None, description="disk for an account's snapshots; half of FUMEHOOD_IMAGES_MAX_BYTES, if not given"
    )
    health_check_seconds: float = Field(
        default=30.0, gt=0, description="how often each sandbox is asked whether it still answers"
    )
    uplink_namespace: str | None = Field(
        default=None,
        description="network namespace (`ip netns`) through which PUBLIC reaches the internet, not this one's",
    )
    uplink_interface: str | None = Field(
        default=None, description="the only interface by which PUBLIC leaves; without it as routes lead"
    )
    uplink_range: str | None = Field(
        default=None,
        description="IPv4 range for links to sandboxes with a network, two addresses each; without it a free one of "
        "100.64.0.0/10",
    )
    public_allow: str = Field(
        default="",
        description="what PUBLIC reaches though it is forbidden: 10.1.2.3:8080 mirror.example .internal.example:443",
    )
    resolvers: str = Field(
        default="", description="addresses of the resolvers that PUBLIC asks; without any those of /etc/resolv.conf"
    )
    networks_file: Path | None = Field(
        default=None, description="TOML file with the subnets and security groups of mode VPC"
    )
    network_slots: int = Field(
        default=2, ge=0, description="networks for sandboxes that are ready, once one was asked for"
    )
    runsc: str = Field(default="runsc", description="the gVisor runtime to use")

    @cached_property
    def url(self) -> str:
        """Where clients connect."""
        if self.public_url:
            return self.public_url.rstrip("/")
        scheme = "https" if self.tls_certificate else "http"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    @cached_property
    def database(self) -> str:
        """The SQLAlchemy URL in force."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data / 'fumehood.sqlite3'}"


def check_names(names: Iterable[str]) -> None:
    """ConfigurationError for an environment variable whose setting has another name now: a limit must not be lost."""
    for name in sorted(names):
        now = _RENAMED.get(name.upper())
        if now is not None:
            raise ConfigurationError(f"{name} is set, and is called {now} now: set that instead")


def check_together(settings: Settings) -> None:
    """ConfigurationError for settings of which one would undo what another says, without anybody being told."""
    for problem in (*_order_problems(settings), *_s3_problems(settings)):
        raise ConfigurationError(problem)


def _order_problems(settings: Settings) -> Iterable[str]:
    """What is wrong with limits of which one must not be beyond the other."""
    for smaller, larger, why in _IN_ORDER:
        least, most = getattr(settings, smaller), getattr(settings, larger)
        if least is not None and most is not None and least > most:
            yield (
                f"{PREFIX}{smaller.upper()} is {least} and {PREFIX}{larger.upper()} is {most}: {why}. "
                "Make the first smaller, or the second larger."
            )
    # Without a pool nothing is ready; and a default is no more than what is best where nobody says otherwise.
    if "pool_min" in settings.model_fields_set and 0 < settings.pool_max < settings.pool_min:
        yield (
            f"{PREFIX}POOL_MIN is {settings.pool_min} and {PREFIX}POOL_MAX is {settings.pool_max}: so many sandboxes "
            "could not be ready. Make the first smaller, or the second larger."
        )


def _s3_problems(settings: Settings) -> Iterable[str]:
    url = settings.s3_endpoint_url
    for name, is_given in (("PATH_STYLE", settings.s3_path_style), ("CA_BUNDLE", settings.s3_ca_bundle is not None)):
        if is_given and url is None:
            yield (
                f"{PREFIX}S3_{name} is of the S3 at {PREFIX}S3_ENDPOINT_URL, which is not set: roles would use AWS's. "
                f"Set {PREFIX}S3_ENDPOINT_URL, or leave {PREFIX}S3_{name} out."
            )
    if url is not None and url.startswith("http:") and settings.s3_ca_bundle is not None:
        yield (
            f"{PREFIX}S3_CA_BUNDLE is for a certificate, and {PREFIX}S3_ENDPOINT_URL is {url}, without TLS. "
            f"Make it an https:// one, or leave {PREFIX}S3_CA_BUNDLE out."
        )


def unknown_variables(names: Iterable[str]) -> dict[str, str | None]:
    """Those of the environment variables that look like a setting and are none, each with the nearest setting's name.

    None where no setting is near.
    """
    known = {name.upper() for name in Settings.model_fields}
    strange: dict[str, str | None] = {}
    for name in sorted(names):
        wanted = name.upper().removeprefix(PREFIX)
        if wanted != name.upper() and wanted not in known:
            near = difflib.get_close_matches(wanted, known, 1)
            strange[name] = f"{PREFIX}{near[0]}" if near else None
    return strange
