"""The npm packages of a template: what a lock pins, installed without running anything of theirs."""

import asyncio
import shutil
from pathlib import Path

from fumehood.sandbox.template.recipe import NpmPackages
from fumehood.sandbox.template.workplace import Workplace

NODE = "usr/local/bin/node"
_NPM = "usr/local/lib/npm/bin/npm-cli.js"
MODULES = "usr/local/lib/node_modules"
_SECONDS = 900


async def install(workplace: Workplace, root: Path, packages: NpmPackages) -> None:
    """Install what the lock pins into the root, by the root's own npm, where every program finds it.

    node and deno look for `node_modules` in the folder of what imports and in those above it. The link in the root
    folder ends every such search, wherever it begins, for `require` and `import`; NODE_PATH serves only the former.
    Raises TemplateError, with what npm printed.
    """
    workplace.progress.phase("npm packages")
    folder = workplace.folder / "npm"
    folder.mkdir()
    (folder / "package.json").write_text(packages.package)
    (folder / "package-lock.json").write_text(packages.lock)
    await workplace.run(
        [
            *(str(root / NODE), str(root / _NPM), "ci", f"--prefix={folder}"),
            *("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"),
        ],
        deadline_seconds=_SECONDS,
        network=True,
    )
    await asyncio.to_thread(shutil.move, folder / "node_modules", root / MODULES)
    await asyncio.to_thread(shutil.rmtree, folder)
    (root / "node_modules").symlink_to(MODULES)
