"""Puts the parts together, and maps operation names to functions; the only place that knows everything."""

import asyncio
import fcntl
import json
import os
import resource
import secrets
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import structlog
import uvicorn

from fumehood.allocator import Quiet
from fumehood.attachments.certificates import Certificates
from fumehood.attachments.secret_store import SecretStore
from fumehood.aws.body import Receive
from fumehood.aws.endpoint import Endpoint, Operation, Scope, Send
from fumehood.aws.http_protocol import BoundedHttpProtocol
from fumehood.calls import Call, CallRecord
from fumehood.errors import ConfigurationError, FieldProblem
from fumehood.extension import openapi
from fumehood.extension.api import Api, Route
from fumehood.extension.files import FileTransfers
from fumehood.extension.pool import MemorySummary, PoolState, PoolSummary, SupplySummary
from fumehood.extension.sessions import SessionControls
from fumehood.extension.templates import TemplateChoices, TemplateSummary
from fumehood.gateway import inside, session_keys
from fumehood.gateway.embedded import EmbeddedS3
from fumehood.gateway.gateway import Gateway
from fumehood.gateway.role_session import RoleSession
from fumehood.identity.authorisation import Authorisation, Lookups
from fumehood.identity.followed_file import watched
from fumehood.ids import interpreter_arn
from fumehood.interpreters import Interpreters
from fumehood.network import environment
from fumehood.network.networks import Networks, networks_of
from fumehood.network.policy import Mode, Network
from fumehood.network.uplink import NetworkUnavailableError
from fumehood.operator_files import OperatorFiles
from fumehood.quotas import Rates
from fumehood.repeated import Repeated
from fumehood.sandbox import machine, trust
from fumehood.sandbox.admission import Admission
from fumehood.sandbox.contract import GuestStream, Isolation, NoNetworkError, SandboxSpec
from fumehood.sandbox.gvisor import Gvisor
from fumehood.sandbox.host import Host, SandboxKind, StartSandbox
from fumehood.sandbox.images.store import ImageStore
from fumehood.sandbox.states import States
from fumehood.sandbox.template import catalog, guest_runtime, holds
from fumehood.sandbox.template.available import Templates
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.warm import WarmImages
from fumehood.sessions.call_memory import CallMemory
from fumehood.sessions.control import Control
from fumehood.sessions.disk import DiskWatch
from fumehood.sessions.health import Health
from fumehood.sessions.hibernation import Hibernation
from fumehood.sessions.lifecycle import Lifecycle
from fumehood.sessions.readiness import Readiness
from fumehood.sessions.recovery import purge, recover
from fumehood.sessions.service import Sessions, default_sizes
from fumehood.sessions.snapshots import Snapshots
from fumehood.settings import Settings
from fumehood.store.database import Database
from fumehood.tools.code import RUNTIMES_OF

_PURGE_SECONDS = 3600.0
_LET_GO_SECONDS = 1.0
_SHUTDOWN_SECONDS = 10
# Beyond this many connections at once the one that waits longest for a request is given up, and where none waits a
# client is told to come again; each holds a file descriptor and some memory.
_CONNECTIONS_MAX = 4096
_CONNECTIONS_SHARE = 2
"""Connections may have one descriptor in so many. The rest is for sandboxes, images and database."""
_DESCRIPTORS = 65_536
_KEEP_ALIVE_SECONDS = 75
"""How long a connection may be idle: agents think, and one that is closed as its next call comes fails that call."""
log = structlog.get_logger()


@dataclass
class Fumehood:
    """A running service. `app` answers HTTP requests once this exists."""

    settings: Settings
    isolation: Isolation
    endpoint: Endpoint
    extension: Api
    sessions: Sessions
    readiness: Readiness

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI app: health, the extensions, and for all else the two AWS services."""
        if scope["type"] != "http":
            return
        path = scope["raw_path"].partition(b"?")[0]
        if path == b"/ping":
            await self._ping(send)
        elif path == b"/fumehood/v1/openapi.json":
            await _send_json(send, 200, openapi.document())
        elif path.startswith(b"/fumehood/"):
            await self.extension(scope, receive, send)
        else:
            await self.endpoint(scope, receive, send)

    async def _ping(self, send: Send) -> None:
        obstacle, isolation = await self.readiness.obstacle(), self.isolation.without_network
        if obstacle is None:
            await _send_json(send, 200, {"status": "Healthy", "isolation": isolation})
        else:
            await _send_json(send, 503, {"status": "Unhealthy", "isolation": isolation, "reason": obstacle})


async def _send_json(send: Send, status: int, value: Mapping[str, object]) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


def operations(interpreters: Interpreters, sessions: Sessions) -> dict[str, Operation]:
    """Every AWS operation that fumehood has."""
    return {
        "CreateCodeInterpreter": interpreters.create,
        "GetCodeInterpreter": interpreters.get,
        "ListCodeInterpreters": interpreters.list,
        "DeleteCodeInterpreter": interpreters.delete,
        "TagResource": interpreters.tag,
        "UntagResource": interpreters.untag,
        "ListTagsForResource": interpreters.list_tags,
        "StartCodeInterpreterSession": sessions.start,
        "GetCodeInterpreterSession": sessions.get,
        "ListCodeInterpreterSessions": sessions.list,
        "StopCodeInterpreterSession": sessions.stop,
        "InvokeCodeInterpreter": sessions.invoke,
    }


def extension_routes(
    files: FileTransfers, choices: TemplateChoices, controls: SessionControls, pool: PoolState
) -> list[Route]:
    """Every operation that AWS does not have."""
    return [*files.routes, *choices.routes, *controls.routes, *pool.routes]


@asynccontextmanager
async def running(settings: Settings, files: OperatorFiles, template: Template) -> AsyncGenerator[Fumehood]:
    """The service, from settings, the operator's files and the built template; at the end every sandbox is stopped.

    Raises EngineUnavailableError if gVisor cannot run here: nothing weaker is ever used; ConfigurationError if another
    server uses the data folder.
    """
    settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    with holds.shared(template.root.parent), _only_server(settings.data), watched(files.followed):
        async with _running(settings, files, template) as fumehood:
            yield fumehood


@contextmanager
def _only_server(data: Path) -> Generator[None]:
    """Hold the data folder. A second server would take the first one's sandboxes for a dead server's, and end them."""
    with (data / "server.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigurationError(
                f"another server (process {lock.read().strip() or 'unknown'}) uses the data folder {data}: "
                "stop it, or name another folder in FUMEHOOD_DATA"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@asynccontextmanager
async def _running(settings: Settings, files: OperatorFiles, template: Template) -> AsyncGenerator[Fumehood]:
    memory_bytes = settings.memory_bytes or machine.memory_for_sandboxes()
    networks = networks_of(settings, files.declarations, settings.data / "network")
    engine = Gvisor(settings.runsc, settings.data, memory_bytes, networks)
    isolation = await engine.probe()
    database = await Database.open(settings.database)
    try:
        embedded = EmbeddedS3(settings.data / "s3")
        admission = Admission(memory_bytes, engine.memory_used, settings.data, settings.disk_reserve_bytes)
        gateway = Gateway(
            settings,
            files.roles.find,
            embedded,
            session_keys.installation_key(settings.data / "session-key"),
            admission.require_disk,
        )
        store = ImageStore(settings.data / "images", settings.data / "image-key", settings.images_max_bytes)
        host = Host(
            engine,
            isolation,
            WarmImages(engine, settings.data / "warm"),
            States(store, settings.data / "checkpoints", isolation),
            admission,
            partial(_sandbox_spec, template.guest, settings, gateway),
            settings.pool_min,
            settings.pool_max,
            settings.pool_life_seconds,
            settings.pool_blanks,
        )
        lifecycle = Lifecycle(database, host, host.remove_image)
        networks.find_sessions(partial(_session_id, lifecycle))
        host_id = _host_id(settings.data)
        host.answer(partial(_serve_guest, gateway, lifecycle, settings.region))
        if settings.s3_embedded:
            embedded.start()
        await recover(database, host, lifecycle, host_id)
        await host.warm_up(SandboxKind(template.id, default_sizes(settings)))
        templates = Templates(settings, template)
        check_network = partial(_network_problem, host, networks)
        certificates = Certificates(SecretStore(settings.secrets_folder or settings.data / "secrets", settings.region))
        interpreters = Interpreters(
            database,
            partial(_template_id, templates),
            check_network,
            files.roles,
            certificates,
            files.file_systems,
            settings,
        )
        hibernation = Hibernation(database, host, lifecycle, interpreters.network_of, files.file_systems, settings)
        sessions = Sessions(
            database,
            interpreters,
            host,
            lifecycle,
            hibernation,
            certificates,
            files.file_systems,
            host_id,
            settings,
            CallMemory(settings.call_bytes_max or machine.memory_for_calls()),
        )
        lookups = Lookups(
            interpreters.tags_of,
            partial(_interpreter_of_session, database),
            partial(_interpreter_of_snapshot, database),
        )
        authorise = Authorisation(files.policies, lookups, settings).authorise
        admit = partial(_admit, authorise, Rates(settings))
        endpoint = Endpoint(settings, files.principals.find_key, admit, operations(interpreters, sessions), _log_call)
        transfers = FileTransfers(
            sessions.stream, max(settings.sandbox_disk_bytes, settings.largest_sandbox_disk_bytes or 0)
        )
        choices = TemplateChoices(
            partial(_template_summaries, templates), interpreters.get_template, interpreters.set_template
        )
        snapshots = Snapshots(database, host, host_id, sessions, hibernation, interpreters.network_of, settings)
        controls = SessionControls(Control(sessions, host, hibernation, isolation), snapshots)
        pool = PoolState(partial(_pool_summaries, host), partial(_memory_summary, host))
        extension = Api(endpoint, authorise, extension_routes(transfers, choices, controls, pool))
        disk = DiskWatch(host, lifecycle)
        repeated = [
            Repeated(partial(_purge, database, interpreters, settings), _PURGE_SECONDS, "what is old was not purged"),
            Repeated(
                partial(_let_go_of_removed, host, settings),
                _LET_GO_SECONDS,
                "what is removed was not let go",
            ),
            snapshots.sweeping,
            Health(host, lifecycle, settings.health_check_seconds).watching,
            disk.watching,
            disk.trimming,
            Quiet().watching,
        ]
        readiness = Readiness(database, lambda: sessions.is_closing)
        for each in repeated:
            each.start()
        hibernation.watch()
        try:
            yield Fumehood(settings, isolation, endpoint, extension, sessions, readiness)
        finally:
            await readiness.close()
            for each in repeated:
                await each.close()
            await hibernation.close()
            await sessions.close()
            await host.close(leave_running=settings.keep_sessions)
            await gateway.close()
            await embedded.close()
            await networks.close(leave_running=settings.keep_sessions)
    finally:
        await database.close()


def take_address(settings: Settings) -> socket.socket:
    """A socket that has the server's address and does not listen yet. ConfigurationError if it cannot be had."""
    try:
        family = socket.getaddrinfo(settings.host or None, settings.port, type=socket.SOCK_STREAM)[0][0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((settings.host, settings.port))
    except OSError as error:
        raise ConfigurationError(
            f"{settings.host} port {settings.port} cannot be listened on: {error.strerror}. "
            "Another can be named in FUMEHOOD_HOST and FUMEHOOD_PORT."
        ) from None
    return taken


async def serve(
    fumehood: Fumehood, address: socket.socket, listening: asyncio.Event, stopping: Callable[[], None]
) -> None:
    """Answer HTTP at `address` until SIGINT or SIGTERM.

    `listening` is set once clients can connect; `stopping` is called when a signal has come.
    """
    settings = fumehood.settings
    config = uvicorn.Config(
        fumehood.app,
        http=BoundedHttpProtocol,
        ws="none",
        loop="uvloop",
        interface="asgi3",
        lifespan="off",
        access_log=False,
        # A source address is the connection's: a header that names another could be anybody's.
        proxy_headers=False,
        log_level="warning",
        server_header=False,
        limit_concurrency=min(_CONNECTIONS_MAX, _raise_descriptors() // _CONNECTIONS_SHARE),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    await _Server(config, listening, stopping).serve([address])


def _raise_descriptors() -> int:
    """Let this process have the descriptors that it may allow itself, and say how many.

    Where systemd or a shell has started it that is 1,024, and somebody who only connects could have them all.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


class _Server(uvicorn.Server):
    """uvicorn, which tells nobody by itself that it listens."""

    def __init__(self, config: uvicorn.Config, listening: asyncio.Event, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening
        self._stopping = stopping

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """End serving on a signal. uvicorn's own way raises it again then, before the sandboxes are stopped."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        yield

    def _on_signal(self, number: int) -> None:
        if not self.should_exit:
            self._stopping()
        self.handle_exit(number, None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        if self.started:
            self._listening.set()


async def _template_id(templates: Templates, name: str | None) -> str:
    return (await templates.find(name)).id


async def _network_problem(host: Host, networks: Networks, account_id: str, network: Network) -> FieldProblem | None:
    """What keeps an account's sandboxes from having a network; None if nothing does."""
    try:
        if network.mode is Mode.VPC:
            unusable = networks.find_unusable(account_id, network)
            if unusable:
                name = "subnets" if unusable[0].startswith("subnet-") else "securityGroups"
                return FieldProblem(
                    f"networkConfiguration.vpcConfig.{name}",
                    f"{', '.join(unusable)}: not declared on this server for account {account_id}",
                )
        await host.check_network(network)
    except (NoNetworkError, NetworkUnavailableError) as error:
        return FieldProblem("networkConfiguration.networkMode", f"{network.mode} cannot be had on this server: {error}")
    return None


async def _let_go_of_removed(host: Host, settings: Settings) -> None:
    """Give up what is ready of templates that somebody is removing, and who waits until nothing uses them."""

    def removed(template_ids: set[str]) -> set[str]:
        folder = catalog.folder_of_all(settings)
        return {template_id for template_id in template_ids if holds.is_being_removed(folder / template_id)}

    await host.drop_templates(await asyncio.to_thread(removed, host.pooled_templates()))


async def _template_summaries(templates: Templates) -> list[TemplateSummary]:
    return [
        TemplateSummary(
            name=template.name,
            key=template.key,
            size_bytes=template.size_bytes,
            created_at=template.created_at,
            languages=[name for name, runs_in in RUNTIMES_OF.items() if {*runs_in} & {*template.runtimes}],
            is_default=template.name == templates.default_name,
        )
        for template in await templates.every()
    ]


async def _interpreter_of_session(database: Database, account_id: str, session_id: str) -> str | None:
    async with database.reading() as transaction:
        row = await transaction.sessions.get(session_id)
    return row.interpreter_id if row is not None and row.account_id == account_id else None


async def _interpreter_of_snapshot(database: Database, account_id: str, snapshot_id: str) -> str | None:
    async with database.reading() as transaction:
        row = await transaction.snapshots.get(account_id, snapshot_id)
    return None if row is None else row.interpreter_id


async def _admit(authorise: Callable[[Call], Awaitable[None]], rates: Rates, call: Call) -> None:
    """Who may not call takes nothing from the account's rate. AccessDeniedError or ThrottledError."""
    await authorise(call)
    rates.take(call)


def _pool_summaries(host: Host) -> list[PoolSummary]:
    return [
        PoolSummary(
            template=pool.template_id,
            network=pool.network.mode,
            **asdict(pool.sizes),
            sandboxes=SupplySummary(**asdict(pool.sandboxes)),
            blanks=SupplySummary(**asdict(pool.blanks)),
        )
        for pool in host.pools()
    ]


def _memory_summary(host: Host) -> MemorySummary:
    return MemorySummary(host.memory.used_bytes, host.memory.total_bytes)


def _sandbox_spec(
    guest: Path, settings: Settings, gateway: Gateway, sandbox_id: str, request: StartSandbox
) -> SandboxSpec:
    network = request.kind.network
    if request.kind.has_s3:
        gateway.prepare()
    return SandboxSpec(
        sandbox_id=sandbox_id,
        root=catalog.root_of(request.kind.template_id, settings),
        guest=guest,
        agent_argv=(
            *guest_runtime.guest_argv("fumehood.guest.agent"),
            *(inside.AGENT_ARGUMENTS if request.kind.has_s3 else ()),
        ),
        **asdict(request.kind.sizes),
        life_seconds=request.life_seconds,
        start_timeout_seconds=settings.sandbox_start_timeout_seconds,
        environment={
            **environment.variables(network.mode),
            **(inside.environment(settings.region) if request.kind.has_s3 else {}),
            **(trust.ENVIRONMENT if request.kind.has_certificates else {}),
        },
        network=network,
        resolv_conf=None if network.mode is Mode.SANDBOX else environment.write_resolv_conf(settings.data / "network"),
        mounts=request.kind.mounts,
    )


async def _serve_guest(
    gateway: Gateway, lifecycle: Lifecycle, region: str, sandbox_id: str, stream: GuestStream
) -> None:
    await gateway.serve(_role_session(lifecycle, region, sandbox_id), stream)


def _session_id(lifecycle: Lifecycle, sandbox_id: str) -> str | None:
    row = lifecycle.find_by_sandbox(sandbox_id)
    return None if row is None else row.id


def _role_session(lifecycle: Lifecycle, region: str, sandbox_id: str) -> RoleSession | None:
    """The session that a sandbox is of, if it has a role."""
    row = lifecycle.find_by_sandbox(sandbox_id)
    if row is None or row.execution_role_arn is None:
        return None
    arn = interpreter_arn(region, row.account_id, row.interpreter_id)
    return RoleSession(row.id, row.account_id, str(arn), row.execution_role_arn, row.started_by.rpartition("/")[2])


def _host_id(data: Path) -> str:
    """What this machine's data folder is called in the rows of sessions; made once."""
    path = data / "host-id"
    with suppress(FileNotFoundError):
        return path.read_text().strip()
    host_id = secrets.token_hex(8)
    path.write_text(host_id)
    return host_id


async def _purge(database: Database, interpreters: Interpreters, settings: Settings) -> None:
    await purge(database, settings)
    await interpreters.purge()


def _log_call(record: CallRecord) -> None:
    """One line for each request; never what was in it."""
    call = record.call
    parameters = call.parameters if call is not None else {}
    log.info(
        "call",
        request_id=record.request_id,
        operation=call.operation if call is not None else None,
        session_id=parameters.get("sessionId"),
        tool=parameters.get("name") if call is not None and call.operation == "InvokeCodeInterpreter" else None,
        principal=call.principal.arn if call is not None else None,
        method=record.method,
        path=record.path,
        source=record.source_address,
        status=record.http_status,
        error=record.error,
        ms=round(record.duration_seconds * 1000, 2),
    )
