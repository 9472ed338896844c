"""A registry of npm packages on loopback, for packages that no real registry would have."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@contextmanager
def registry(packages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A registry with these packages, each by its package.json without a name; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/").removeprefix("files/").removesuffix(".tgz")
            if name not in packages:
                self.send_error(404)
                return
            package = {"name": name} | dict(packages[name])
            archive = _archive(package)
            address = f"http://127.0.0.1:{server.server_port}/files/{name}.tgz"
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
            version = package | {"dist": {"tarball": address, "integrity": integrity}, "hasInstallScript": True}
            described = {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
            content = archive if self.path.endswith(".tgz") else json.dumps(described).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test tells what matters."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _archive(package: Mapping[str, Any]) -> bytes:
    packed = io.BytesIO()
    content = json.dumps(package).encode()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("package/package.json")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return gzip.compress(packed.getvalue(), mtime=0)
