"""The other reference: a bare Jupyter kernel, with no isolation and no service before it."""

import contextlib
import subprocess
import time
from collections.abc import Generator
from queue import Empty

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

_SECONDS = 60.0


@contextlib.contextmanager
def kernel() -> Generator[BlockingKernelClient]:
    """A new ipykernel, started and ready."""
    manager = KernelManager(kernel_name="python3")
    # Its log is not a part of the results.
    manager.start_kernel(stderr=subprocess.DEVNULL)
    client = manager.client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=_SECONDS)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def execute(client: BlockingKernelClient, code: str) -> str:
    """Run `code`; the text of its value, once the kernel has said all it has to say of it."""
    request = client.execute(code)
    deadline = time.monotonic() + _SECONDS
    value = ""
    while time.monotonic() < deadline:
        with contextlib.suppress(Empty):
            message = client.get_iopub_msg(timeout=1)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "execute_result":
                value = message["content"]["data"]["text/plain"]
            elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                client.get_shell_msg(timeout=_SECONDS)
                return value
    raise TimeoutError(f"the kernel was not done with {code!r} in {_SECONDS:g} s")
