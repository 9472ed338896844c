"""What user code finds in its environment and its files for the network that its sandbox has."""

from collections.abc import Mapping
from pathlib import Path

from fumehood.network.firewall import GATEWAY
from fumehood.network.policy import Mode

_NOWHERE = "there-is-no-network-in-sandbox-mode"
_WITHOUT: Mapping[str, str] = {
    # Without these pip tries for nine seconds, and does not say why it finds nothing.
    "PIP_INDEX_URL": f"file:///{_NOWHERE}",
    "PIP_RETRIES": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "npm_config_registry": f"http://{_NOWHERE}.invalid/",
    "npm_config_fetch_retries": "0",
    "npm_config_update_notifier": "false",
}
_RESOLV_CONF = f"nameserver {GATEWAY}\noptions timeout:5 attempts:2\n"


def variables(mode: Mode) -> Mapping[str, str]:
    """With no network package managers fail at once, and their message says that there is none."""
    return _WITHOUT if mode is Mode.SANDBOX else {}


def write_resolv_conf(folder: Path) -> Path:
    """The file that is /etc/resolv.conf in each sandbox with a network: the resolver's address is the same in all."""
    path = folder / "resolv.conf"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(_RESOLV_CONF)
        path.chmod(0o644)
    return path
