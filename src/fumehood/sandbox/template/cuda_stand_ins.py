"""Lets a PyTorch that is built for CUDA run in a template without CUDA; `make_cuda_stand_ins.py` says how."""

import asyncio
import shutil
from pathlib import Path

from fumehood.sandbox.template import make_cuda_stand_ins, wheels
from fumehood.sandbox.template.workplace import Workplace

_SECONDS = 600
# The dynamic loader looks here last: CUDA that somebody installs later comes before.
_LIBRARIES = "/usr/local/lib"


async def install(workplace: Workplace, root: Path) -> None:
    """Make the stand-ins inside the root, which has gcc. Raises TemplateError."""
    workplace.progress.phase("stand-ins for CUDA")
    script = root / "var/tmp/make_cuda_stand_ins.py"
    await asyncio.to_thread(shutil.copyfile, str(make_cuda_stand_ins.__file__), script)
    packages = f"/usr/local/lib/python{wheels.python_version(root)}/dist-packages"
    inside = f"/{script.relative_to(root)}"
    await workplace.run(
        ["chroot", str(root), wheels.PYTHON, "-I", "-S", inside, packages, _LIBRARIES], deadline_seconds=_SECONDS
    )
    await workplace.run(["chroot", str(root), "/sbin/ldconfig"], deadline_seconds=_SECONDS)
    await asyncio.to_thread(script.unlink)
