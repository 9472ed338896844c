"""`fumehood serve`: checks the machine, builds what is missing, and serves until it is told to stop."""

import asyncio
import ipaddress
import logging
import os
import socket
import ssl
import sys
from collections.abc import Iterable
from contextlib import suppress
from typing import Annotated, Any

import structlog
import uvloop
from cyclopts import Parameter
from rich.console import Console
from rich.panel import Panel

from fumehood import allocator
from fumehood.cli import build_progress
from fumehood.cli.doctor import doctor_lines
from fumehood.cli.env import record
from fumehood.cli.modes import network_modes
from fumehood.errors import ConfigurationError
from fumehood.operator_files import OperatorFiles
from fumehood.sandbox import machine
from fumehood.sandbox.contract import EngineUnavailableError
from fumehood.sandbox.template import catalog
from fumehood.sandbox.template.errors import TemplateError
from fumehood.server import Fumehood, running, take_address
from fumehood.server import serve as serve_http
from fumehood.settings import Settings, check_names, check_together, unknown_variables


def serve(
    *,
    host: Annotated[str | None, Parameter(help="address to listen on (FUMEHOOD_HOST)")] = None,
    port: Annotated[int | None, Parameter(help="port to listen on (FUMEHOOD_PORT)")] = None,
    insecure: Annotated[bool, Parameter(help="listen beyond loopback without TLS", negative=())] = False,
) -> None:
    """Serve the API. All else is set by environment variables: FUMEHOOD_DATA, FUMEHOOD_DATABASE_URL and so on."""
    allocator.use_one_arena()
    given: dict[str, Any] = {"host": host, "port": port, "insecure": insecure or None}
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    _log_to_stderr()
    for line in unknown_setting_lines(os.environ):
        _say(line)
    try:
        check_names(os.environ)
        check_together(settings)
        check_bind(settings)
        check_certificate(settings)
        with take_address(settings) as address:
            uvloop.run(_serve(settings, address))
    except (ConfigurationError, EngineUnavailableError, TemplateError) as error:
        print(f"fumehood cannot serve: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def unknown_setting_lines(names: Iterable[str]) -> list[str]:
    """A line for each environment variable that looks like a setting and is none."""
    return [
        f"{name} is set, and is no setting: "
        + ("see the README for those there are" if near is None else f"is {near} meant?")
        for name, near in unknown_variables(names).items()
    ]


def check_bind(settings: Settings) -> None:
    """ConfigurationError if keys and code would cross a network in the clear without anybody having said so."""
    if settings.tls_certificate is not None or settings.insecure or _is_loopback(settings.host):
        return
    raise ConfigurationError(
        f"{settings.host} can be reached from other machines, and there is no TLS. Set FUMEHOOD_TLS_CERTIFICATE and "
        "FUMEHOOD_TLS_KEY; or say --insecure (FUMEHOOD_INSECURE=true) if something else protects the connection."
    )


def check_certificate(settings: Settings) -> None:
    """ConfigurationError if TLS is asked for and cannot be had."""
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return
    if certificate is None or key is None:
        lacking = "FUMEHOOD_TLS_CERTIFICATE" if certificate is None else "FUMEHOOD_TLS_KEY"
        raise ConfigurationError(f"{lacking} is not set: TLS needs a certificate and its key")
    for name, path in (("FUMEHOOD_TLS_CERTIFICATE", certificate), ("FUMEHOOD_TLS_KEY", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{name}: {path} cannot be read: {error.strerror}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ConfigurationError(
            f"FUMEHOOD_TLS_CERTIFICATE and FUMEHOOD_TLS_KEY: {certificate} and {key} are no certificate and its key, "
            f"both in PEM: {error.reason or error}"
        ) from None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _serve(settings: Settings, address: socket.socket) -> None:
    lacking = [check for check in await machine.check(settings) if check.is_essential and not check.ok]
    if lacking:
        raise EngineUnavailableError("\n".join(["this machine cannot run sandboxes", *doctor_lines(lacking)]))
    files = await asyncio.to_thread(OperatorFiles.load, settings)
    with build_progress.shown(Console(stderr=True)) as progress:
        template = await catalog.ensure(settings.template, settings, progress)
    _say("starting: the first sandbox is made ready")
    async with running(settings, files, template) as fumehood:
        listening = asyncio.Event()
        announcing = asyncio.ensure_future(_announce(fumehood, files, listening))
        try:
            await serve_http(fumehood, address, listening, lambda: _tell_stopping(fumehood))
        finally:
            announcing.cancel()
    _say("stopped")


def _tell_stopping(fumehood: Fumehood) -> None:
    count, ends = fumehood.sessions.count, fumehood.sessions.count_ending
    told = f"stopping: {ends} {'session ends' if ends == 1 else 'sessions end'}"
    _say(told if count == ends else f"{told}, {count - ends} left to the next server")


async def _announce(fumehood: Fumehood, files: OperatorFiles, listening: asyncio.Event) -> None:
    await listening.wait()
    settings, isolation = fumehood.settings, fumehood.isolation
    record(settings)
    modes = await network_modes(len(files.declarations.present.subnets))
    # The keys are the server's user's to read.
    command = f"sudo {sys.argv[0]}" if "SUDO_USER" in os.environ else sys.argv[0]
    lines = [
        f"Serving the AgentCore Code Interpreter API at [bold]{settings.url}[/]",
        f"Isolation: {isolation.without_network}",
        f"Network modes: {modes}",
        f"Data: {settings.data}",
        "",
        "Point a client at it:",
        f'  [bold]eval "$({command} env)"[/]',
    ]
    Console(stderr=True, soft_wrap=True).print(Panel("\n".join(lines), title="fumehood", expand=False))


def _say(line: str) -> None:
    """Write a line to stderr. What cannot be written is lost: a full disk under the log must not fail calls."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode(errors="replace"))


class _StderrLogger:
    """Writes lines to stderr."""

    def msg(self, message: str) -> None:
        """Write a line."""
        _say(message)

    debug = info = warning = error = critical = exception = msg


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _StderrLogger(),
        cache_logger_on_first_use=True,
    )
