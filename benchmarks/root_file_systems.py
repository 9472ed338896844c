"""`python -m benchmarks.root_file_systems`: a template's folder as gVisor's root, beside an EROFS image of it.

What a template's root file system should be is decided by these figures; README of the results: caveats first.
"""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import cyclopts
from cyclopts import Parameter
from rich.console import Console
from rich.progress import track

from benchmarks import report
from benchmarks.measures import Measure
from fumehood.cli.bench import machine
from fumehood.cli.bench.samples import Mark, Samples
from fumehood.sandbox.template import catalog
from fumehood.settings import MIB, Settings

_RESULTS = Path(__file__).with_name("results")
_PAGE = "ROOT-FILE-SYSTEMS.md"
_KINDS = ("folder", "erofs")
_SECONDS = 300
_IMPORTS = "import pandas, sklearn.linear_model, matplotlib.pyplot"
_WALK = """
import os, sys
total = 0
for folder, _, files in os.walk(sys.argv[1]):
    for name in files:
        with open(os.path.join(folder, name), "rb") as file:
            total += len(file.read())
print(total)
"""
_WAIT = f"{_IMPORTS}; print('ready', flush=True)\nwhile line := input(): print(line, flush=True)"
_TITLES = {
    "true": "`/bin/true`, from start to exit",
    "import": f"`{_IMPORTS}`, from start to exit",
    "walk": "read every file of the Python packages",
    "restore": "restore of a checkpoint with these imports, to its first answer",
}
_CAVEATS = """\
- The host's page cache is warm for both: what is measured is gVisor's way to files, not the disk.
- In turns: each round does every measure with each root; a ratio is that of two medians of one round.
- Memory is what `MemAvailable` lost while {instances} sandboxes with these imports waited, for each of them."""
app = cyclopts.App(name="root_file_systems", help="A template's folder as gVisor's root, beside an EROFS image of it.")


def measure(what: str, kind: str) -> Measure:
    """The measure of `what` with a root of `kind`; a folder is the reference."""
    return Measure(f"{kind}.{what}", f"{kind}: {_TITLES[what]}", None if kind == "folder" else f"folder.{what}")


class Roots:
    """Runs programs on a template, as a folder or as an image of it."""

    def __init__(self, template: Path, image: Path, scratch: Path) -> None:
        self._template = template
        self._image = image
        self._scratch = scratch
        self._count = 0
        self.packages = str(next(template.glob("usr/local/lib/python3*/dist-packages"))).removeprefix(str(template))

    @contextlib.contextmanager
    def program(self, kind: str, argv: list[str], *, restore: Path | None = None) -> Generator["Program"]:
        """`argv` in a sandbox of its own; gone at the end."""
        self._count += 1
        name = f"roots-{os.getpid()}-{self._count}"
        bundle = self._scratch / name
        bundle.mkdir()
        (bundle / "config.json").write_text(json.dumps(self._spec(kind, argv, bundle)))
        command = ["runsc", f"--root={self._scratch / 'state'}", "--platform=systrap", "--network=none"]
        command += ["--overlay2=root:memory", "--ignore-cgroups"]
        program = Program(command, name, bundle, restore)
        try:
            yield program
        finally:
            program.end()
            shutil.rmtree(bundle)

    def _spec(self, kind: str, argv: list[str], bundle: Path) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "ociVersion": "1.0.0",
            "root": {"path": str(self._template)},
            "process": {
                "user": {"uid": 1000, "gid": 1000},
                "args": argv,
                "env": ["PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/home/sandbox", "PYTHONDONTWRITEBYTECODE=1"],
                "cwd": "/",
            },
            "mounts": [{"type": "proc", "source": "proc", "destination": "/proc"}],
            "linux": {"namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "network")]},
        }
        if kind == "erofs":
            empty = bundle / "root"
            empty.mkdir()
            prefix = "dev.gvisor.spec.rootfs."
            annotations = {"source": str(self._image), "type": "erofs", "overlay": "memory"}
            spec["root"]["path"] = str(empty)
            spec["annotations"] = {prefix + name: value for name, value in annotations.items()}
        return spec


class Program:
    """A program in a sandbox."""

    def __init__(self, command: list[str], name: str, bundle: Path, restore: Path | None) -> None:
        self._command = command
        self._name = name
        verb = ["run"] if restore is None else ["restore", f"--image-path={restore}"]
        self._process = subprocess.Popen(
            [*command, *verb, f"--bundle={bundle}", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def wait(self) -> str:
        """What it printed, once it has ended. RuntimeError if it failed."""
        output, _ = self._process.communicate(timeout=_SECONDS)
        if self._process.returncode != 0:
            raise RuntimeError(f"exit code {self._process.returncode}: {output[-1000:]}")
        return output

    def say(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def expect(self, line: str) -> None:
        """RuntimeError unless that is the next line it prints."""
        assert self._process.stdout is not None
        if (found := self._process.stdout.readline().strip()) != line:
            raise RuntimeError(f"not {line!r} but {found!r}")

    def checkpoint(self, image: Path) -> None:
        """Write a checkpoint of it, which ends it."""
        command = [*self._command, "checkpoint", "--compression=none", f"--image-path={image}", self._name]
        subprocess.run(command, check=True, timeout=_SECONDS, capture_output=True)

    def end(self) -> None:
        """Have it gone."""
        subprocess.run([*self._command, "kill", self._name, "KILL"], capture_output=True, timeout=_SECONDS)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(_SECONDS)
        subprocess.run([*self._command, "delete", "--force", self._name], capture_output=True, timeout=_SECONDS)


def _python(code: str, *arguments: str) -> list[str]:
    return ["/usr/bin/python3", "-c", code, *arguments]


def _round(samples: Samples, number: int, roots: Roots, images: dict[str, Path]) -> None:
    argvs = {"true": ["/bin/true"], "import": _python(_IMPORTS), "walk": _python(_WALK, roots.packages)}
    for what, argv in argvs.items():
        for kind in _KINDS:

            def run(mark: Mark, kind: str = kind, what: str = what, argv: list[str] = argv) -> None:
                with roots.program(kind, argv) as program:
                    program.wait()
                    mark(f"{kind}.{what}")

            samples.take(number, [f"{kind}.{what}"], run)
    for kind in _KINDS:

        def restore(mark: Mark, kind: str = kind) -> None:
            with roots.program(kind, _python(_WAIT), restore=images[kind]) as program:
                program.say("hello")
                program.expect("hello")
                mark(f"{kind}.restore")

        samples.take(number, [f"{kind}.restore"], restore)


def _checkpoints(roots: Roots, scratch: Path) -> dict[str, Path]:
    images = {kind: scratch / f"checkpoint-{kind}" for kind in _KINDS}
    for kind, image in images.items():
        image.mkdir()
        with roots.program(kind, _python(_WAIT)) as program:
            program.expect("ready")
            program.checkpoint(image)
    return images


def _memory_of_each(roots: Roots, kind: str, images: dict[str, Path] | None, instances: int) -> float:
    """MiB that one of `instances` waiting sandboxes takes; restored ones if there are `images`."""
    before = _available_bytes()
    with contextlib.ExitStack() as running:
        for _ in range(instances):
            restore = images[kind] if images is not None else None
            program = running.enter_context(roots.program(kind, _python(_WAIT), restore=restore))
            if restore is None:
                program.expect("ready")
            else:
                program.say("hello")
                program.expect("hello")
        return (before - _available_bytes()) / instances / MIB


def _available_bytes() -> int:
    # Freed pages are counted late.
    time.sleep(1)
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024


@app.default
def run(*, template: str = "standard", rounds: Annotated[int, Parameter("rounds")] = 10, instances: int = 8) -> None:
    """Compare both kinds of root, and keep the raw samples and a page that sums them up.

    Args:
        template: the built template to compare them on.
        rounds: how often every measure has its turn.
        instances: sandboxes at once, to measure what memory one takes.
    """
    began, here, samples = datetime.now(UTC), machine.describe(), Samples()
    found = [built for built in catalog.list_templates(Settings()) if built.name == template and built.is_current]
    if not found:
        raise SystemExit(f"template {template} is not built: fumehood template build {template}")
    if shutil.which("mkfs.erofs") is None:
        raise SystemExit("mkfs.erofs is not there: apt-get install erofs-utils")
    root = found[0].root
    console = Console()
    with tempfile.TemporaryDirectory(prefix="roots-", dir="/var/tmp") as folder:
        scratch = Path(folder)
        image = scratch / "image.erofs"
        making = time.monotonic()
        # Without noinline_data gVisor cannot run programs of the image: "bad address".
        subprocess.run(
            ["mkfs.erofs", "-E", "noinline_data", str(image), str(root)], check=True, capture_output=True, timeout=3600
        )
        made_seconds = time.monotonic() - making
        roots = Roots(root, image, scratch)
        images = _checkpoints(roots, scratch)
        for number in track(range(rounds), "rounds", console=console):
            _round(samples, number, roots, images)
        memory = {
            kind: (_memory_of_each(roots, kind, None, instances), _memory_of_each(roots, kind, images, instances))
            for kind in _KINDS
        }
        image_mib = image.stat().st_size / MIB
    folder_mib = found[0].size_bytes / MIB
    measures = [measure(what, kind) for what in _TITLES for kind in _KINDS]
    lines = [
        "# A template's root: a folder, or a read-only EROFS image",
        "",
        "Made by `python -m benchmarks.root_file_systems`; do not edit. Read these first:",
        "",
        _CAVEATS.format(instances=instances),
        "",
        f"{began:%Y-%m-%d %H:%M} UTC, commit {here.commit}, template {template}. {here.processor}, "
        f"{here.processors} processors, {here.memory_gib} GiB, Linux {here.kernel}, runsc {here.runsc}; load average "
        f"{here.load_average:.1f} before and {machine.load_average():.1f} after.",
        "",
        *report.table(measures, samples),
        "",
        "| root | size | memory of a sandbox, started | restored |",
        "|---|---:|---:|---:|",
        *(
            f"| {kind} | {size:.0f} MiB | {memory[kind][0]:.0f} MiB | {memory[kind][1]:.0f} MiB |"
            for kind, size in zip(_KINDS, (folder_mib, image_mib), strict=True)
        ),
        "",
        f"Making the image took {made_seconds:.0f} s.",
        "",
    ]
    _RESULTS.mkdir(exist_ok=True)
    raw = {name: [report.raw(sample) for sample in samples.of(name)] for name in (m.name for m in measures)}
    (_RESULTS / "root-file-systems.json").write_text(json.dumps(raw, separators=(",", ":")) + "\n")
    (_RESULTS / _PAGE).write_text("\n".join(lines))
    console.print("\n".join(lines), soft_wrap=True, markup=False)


if __name__ == "__main__":
    app()
