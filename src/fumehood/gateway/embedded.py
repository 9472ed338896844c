"""fumehood's own S3, to try things without an account: rclone serving a folder of the data folder on a UNIX socket.

It is reached by whoever may open the socket, which lies in a folder of mode 0700, and has its keys besides.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import string
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from fumehood import parent_death
from fumehood.aws.signing_keys import SigningKeys
from fumehood.gateway.place import CredentialsUnavailableError, Place

_DELAYS_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_STEADY_SECONDS = 60.0
"""Once it has run for so long, the next start after an end is as the first."""
_READY_SECONDS = 20.0
_STOP_SECONDS = 5.0
_BUFFERED_PARTS = "128M"
_SOCKET_NAME_BYTES_MAX = 107
RequireDisk = Callable[[int, str], None]
"""ThrottledError, with the figures, if the disk that this S3 is on has no room for so many bytes of something."""
_LETTERS = string.ascii_letters + string.digits
log = structlog.get_logger()


class EmbeddedS3:
    """The server, started when it is first needed, started again where it ends, and stopped by `close`."""

    def __init__(self, folder: Path) -> None:
        """Buckets, keys and socket are below `folder`."""
        self._folder = folder
        self._buckets = folder / "buckets"
        self._keys_file = folder / "keys.json"
        self._running: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._keys: SigningKeys | None = None
        self._runtime: Path | None = None
        self.pid: int | None = None
        """Of the server's process, while there is one."""

    def place(self) -> Place:
        """Where it is, whether or not it runs yet."""
        return Place("http://localhost", "us-east-1", path_style=True, socket=self._socket(), copies_parts=False)

    def _socket(self) -> Path:
        """Below the data folder, unless its name would be longer than a socket's may be."""
        socket = self._folder / "socket"
        if len(os.fsencode(socket)) <= _SOCKET_NAME_BYTES_MAX:
            return socket
        if self._runtime is None:
            self._runtime = Path(tempfile.mkdtemp(prefix="fumehood-s3-"))
        return self._runtime / "socket"

    async def credentials(self) -> SigningKeys:
        """Its keys, once it answers. CredentialsUnavailableError if it does not in time."""
        self.start()
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await self._ready.wait()
        except TimeoutError:
            raise CredentialsUnavailableError("the embedded S3 server does not start") from None
        assert self._keys is not None
        return self._keys

    def start(self) -> None:
        """Have it running from now on."""
        if self._running is None:
            self._running = asyncio.ensure_future(self._keep_running())

    async def close(self) -> None:
        """Stop it, and wait until it has ended."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            self._running = None
        if self._runtime is not None:
            await asyncio.to_thread(shutil.rmtree, self._runtime, ignore_errors=True)
            self._runtime = None

    async def _keep_running(self) -> None:
        self._keys = await asyncio.to_thread(self._prepare)
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            try:
                code = await self._run(self._keys)
            except OSError as error:
                log.error("s3.embedded_not_started", error=str(error))
                code = None
            finally:
                self._ready.clear()
            if asyncio.get_running_loop().time() - began >= _STEADY_SECONDS:
                failures = 0
            delay = _DELAYS_SECONDS[min(failures, len(_DELAYS_SECONDS) - 1)]
            failures += 1
            log.error("s3.embedded_ended", exit_code=code, again_in_seconds=delay)
            await asyncio.sleep(delay)

    def _prepare(self) -> SigningKeys:
        self._buckets.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.chmod(0o700)
        if not self._keys_file.exists():
            keys = {"access_key_id": "AKIA" + _random(16).upper(), "secret_access_key": _random(40)}
            descriptor, new = tempfile.mkstemp(dir=self._folder)
            with os.fdopen(descriptor, "w") as file:
                json.dump(keys, file)
                file.flush()
                os.fsync(file.fileno())
            Path(new).rename(self._keys_file)
        kept = json.loads(self._keys_file.read_text())
        return SigningKeys(kept["access_key_id"], kept["secret_access_key"])

    async def _run(self, keys: SigningKeys) -> int:
        socket = self._socket()
        await asyncio.to_thread(socket.unlink, missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            # A server that is killed must leave none behind that the next one would run beside.
            *parent_death.command(
                # With no network: whoever takes it over reaches nothing by it.
                *("unshare", "--net"),
                str(Path(sys.executable).with_name("rclone")),
                *("serve", "s3", "--config", "/dev/null", "--addr", f"unix://{socket}"),
                *("--umask", "077", "--max-header-bytes", "65536"),
                *("--multipart-streaming-buffer-limit", _BUFFERED_PARTS, "--multipart-streaming-buffer-total", "512M"),
                str(self._buckets),
                by=signal.SIGTERM,
            ),
            # In its environment, not its arguments, which every user of the machine can read.
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "RCLONE_AUTH_KEY": f'"{keys.access_key_id},{keys.secret_access_key}"',
                "GOMEMLIMIT": "512MiB",
                "TZ": "UTC",
            },
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        self.pid = process.pid
        try:
            await self._until_it_listens(socket, process)
            return await process.wait()
        finally:
            self.pid = None
            await _stop(process)

    async def _until_it_listens(self, socket: Path, process: asyncio.subprocess.Process) -> None:
        for _ in range(int(_READY_SECONDS / 0.05)):
            if process.returncode is not None:
                return
            with suppress(OSError):
                _, writer = await asyncio.open_unix_connection(str(socket))
                writer.close()
                self._ready.set()
                return
            await asyncio.sleep(0.05)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(asyncio.shield(process.wait()), _STOP_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _random(length: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
