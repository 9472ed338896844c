"""What user code finds in its environment for the network that its sandbox has."""

from collections.abc import Mapping

_NOWHERE = "there-is-no-network-in-sandbox-mode"

WITHOUT: Mapping[str, str] = {
    # Without these pip tries for nine seconds, and does not say why it finds nothing.
    "PIP_INDEX_URL": f"file:///{_NOWHERE}",
    "PIP_RETRIES": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "npm_config_registry": f"http://{_NOWHERE}.invalid/",
    "npm_config_fetch_retries": "0",
    "npm_config_update_notifier": "false",
}
"""For a sandbox with no network: package managers fail at once, and their message says that there is none."""
