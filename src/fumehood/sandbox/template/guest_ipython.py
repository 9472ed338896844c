"""IPython for templates whose Python has none: pure Python packages in one folder, brought along in the guest runtime.

An image that was not made for fumehood has a Python, if any, and what its own programs need. Its kernel takes IPython
from here, behind everything that the image has itself.
"""

import asyncio
import shutil
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fumehood import clock
from fumehood.sandbox.template import key, recipe
from fumehood.sandbox.template.workplace import Workplace

OLDEST_PYTHON = (3, 11)
"""The oldest that this IPython runs on."""
_DOWNLOAD_SECONDS = 900
_RECIPE = "base"
# IPython and what it imports; the rest of what it names is of use only in a terminal, or is compiled.
_PACKAGES = frozenset(
    {"asttokens", "executing", "ipython", "ipython-pygments-lexers", "matplotlib-inline", "pexpect", "prompt-toolkit"}
    | {"ptyprocess", "pure-eval", "pygments", "stack-data", "traitlets", "typing-extensions", "wcwidth"}
)


def pins() -> list[str]:
    """The packages in the versions that the template `base` has."""
    return [pin for pin in recipe.load(_RECIPE).wheels if pin.partition("==")[0] in _PACKAGES]


def ingredients() -> dict[str, object]:
    """What the folder's key is made from."""
    return {"pins": pins(), "build_code": key.of_files([Path(__file__)], Path(__file__).parent)}


async def build(workplace: Workplace) -> Mapping[str, Any]:
    """Fill the workplace with the packages, in `root`. Returns its manifest. Raises TemplateError."""
    workplace.progress.phase("guest IPython", len(pins()))
    fetched = workplace.folder / "wheels"
    await workplace.run(
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--progress-bar=off"),
            # Pure Python, so that they run on every template's Python.
            *("--platform=any", "--abi=none", "--implementation=py"),
            *(f"--python-version={'.'.join(map(str, OLDEST_PYTHON))}", f"--dest={fetched}", *pins()),
        ],
        deadline_seconds=_DOWNLOAD_SECONDS,
        network=True,
        contained=False,
    )
    await asyncio.to_thread(_unpack, fetched, workplace.folder / "root")
    return {"created_at": clock.now().isoformat()}


def _unpack(fetched: Path, root: Path) -> None:
    for wheel in sorted(fetched.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root)
    shutil.rmtree(fetched)
