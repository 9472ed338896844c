"""The runtimes that kernels run in: where each is in a template, and the script that serves its calls."""

import os
from pathlib import Path
from typing import NamedTuple

from fumehood.guest.user import USER_ENVIRONMENT

_SCRIPTS = "/.fumehood/lib/fumehood/guest/kernels"
# What a kernel has loaded before all else: true_epoll.c says why. It takes the first name out again, so that programs
# which its code starts have what is the template's alone.
PRELOADED = {"LD_PRELOAD": ":".join(("/.fumehood/lib/true_epoll.so", USER_ENVIRONMENT.get("LD_PRELOAD", "")))}


class Runtime(NamedTuple):
    """One program that runs a kernel script."""

    path: str
    """Where the template has it."""
    argv: tuple[str, ...]
    limits_address_space: bool
    """False for V8's, which reserve far more addresses than they use memory; their heap has a limit of its own."""

    @property
    def is_there(self) -> bool:
        """Whether this template has it."""
        return Path(self.path).exists()


# Half of what the machine inside has, which is what the sandbox may use: V8 keeps buffers, code and threads beside its
# heap. No more than its own greatest: collecting garbage in a larger one takes too long for anybody to wait.
_MEMORY_MEBIBYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
_HEAP_MEBIBYTES = min(_MEMORY_MEBIBYTES // 2, 4096)

RUNTIMES = {
    "python": Runtime("/usr/bin/python3", ("python3", "-B", f"{_SCRIPTS}/python.py"), limits_address_space=True),
    "deno": Runtime(
        "/usr/local/bin/deno",
        # Deno resolves what is imported from the place of the main module: so that is given in the working folder.
        (
            *("deno", "eval", "--quiet", "--node-modules-dir=manual"),
            f"--v8-flags=--max-old-space-size={_HEAP_MEBIBYTES}",
            f"import {{ start }} from '{_SCRIPTS}/deno.mjs'; start((name, options) => import(name, options));",
        ),
        limits_address_space=False,
    ),
    "nodejs": Runtime(
        "/usr/local/bin/node",
        (
            # V8 ends what is interrupted without its `finally`: Node's account of async calls is then not in order.
            *("node", "--no-force-async-hooks-checks", "--disable-warning=ExperimentalWarning"),
            *("--inspect-publish-uid=http", f"--max-old-space-size={_HEAP_MEBIBYTES}", f"{_SCRIPTS}/node.mjs"),
        ),
        limits_address_space=False,
    ),
}
