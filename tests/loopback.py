"""An ASGI app on a real uvicorn on loopback, with the event loop and HTTP parser that the server has, in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from fumehood.aws.http_protocol import BoundedHttpProtocol

STOP_TIMEOUT_SECONDS = 30


@contextmanager
def serving(
    app: Any, http: type[BoundedHttpProtocol] = BoundedHttpProtocol, limit_concurrency: int | None = None
) -> Iterator[str]:
    """Serve `app` while the context is open; gives its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(
            app,
            loop="uvloop",
            http=http,
            lifespan="off",
            log_config=None,
            ws="none",
            limit_concurrency=limit_concurrency,
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(STOP_TIMEOUT_SECONDS)
            assert not thread.is_alive(), "the server did not stop"
