"""Stand-ins for the CUDA libraries, so that a PyTorch built for CUDA runs on the processor without them.

The PyTorch that the registry has for x86-64 is linked to CUDA: without its libraries, of 4 GB, the dynamic loader
refuses it. It needs their names and symbols only. Each stand-in has these, and every function in it answers 100,
`cudaErrorNoDevice`: PyTorch finds no GPU, as on any machine that has the libraries and no GPU.

This file runs inside the root, with its Python, readelf and gcc, standard library only:

    python3 make_cuda_stand_ins.py PACKAGES TARGET

PACKAGES is the folder whose programs are looked through, TARGET is where the libraries are made.
"""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

LIBRARY = re.compile(r"lib(cu|nccl|nv).*\.so(\.\d+)*")
_SHARED_OBJECT = re.compile(r"\.so(\.\d+)*$")
# Symbols without a version do not say which library they are of: these are CUDA's by their names.
_SYMBOL = re.compile(r"_*(cu|nccl|nv)\w*")
_NEEDED = re.compile(r"\(NEEDED\).*\[(.+)\]")
_FILE = re.compile(r" Version: \d+ +File: (\S+)")
_NODE = re.compile(r" Name: (\S+)")
_NO_DEVICE = 100


def main(packages: Path, target: Path) -> None:
    """Make a stand-in in `target` for each CUDA library that something in `packages` is linked to and lacks."""
    files = [file for file in packages.rglob("*.so*") if _SHARED_OBJECT.search(file.name) and file.is_file()]
    brought = {file.name for file in files}
    linked: list[Path] = []
    wanted: set[str] = set()
    for file in files:
        needs = {name for name in _NEEDED.findall(_readelf("--dynamic", file)) if LIBRARY.fullmatch(name)} - brought
        if needs:
            linked.append(file)
            wanted |= needs
    nodes = _version_nodes(linked)
    by_version: dict[str, set[str]] = defaultdict(set)
    for name, version in (symbol for file in linked for symbol in _undefined(file)):
        by_version[version].add(name)
    for library in sorted(wanted):
        versions = {node: by_version[node] for node in nodes[library] if by_version[node]}
        _compile(library, versions or {"": {name for name in by_version[""] if _SYMBOL.fullmatch(name)}}, target)
        print(f"{library} stands in for CUDA's")


def _readelf(option: str, file: Path) -> str:
    return subprocess.run(["readelf", "--wide", option, file], check=True, capture_output=True, text=True).stdout


def _version_nodes(files: Sequence[Path]) -> dict[str, set[str]]:
    """The symbol versions that `files` want, by the library that they want them of."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in files:
        library = ""
        for line in _readelf("--version-info", file).splitlines():
            if match := _FILE.search(line):
                library = match[1]
            elif library and (match := _NODE.search(line)):
                found[library].add(match[1])
    return found


def _undefined(file: Path) -> Iterator[tuple[str, str]]:
    """Each symbol that `file` wants of others, and its version or an empty string."""
    for line in _readelf("--dyn-syms", file).splitlines():
        # Number, value, size, type, binding, visibility, section, name@version, (index of the version)
        fields = line.split()
        if len(fields) >= 8 and fields[6] == "UND":
            name, _, version = fields[7].partition("@")
            yield name, version


def _compile(library: str, versions: dict[str, set[str]], target: Path) -> None:
    names = sorted(set[str]().union(*versions.values()))
    code = f"int no_device(void) {{ return {_NO_DEVICE}; }}\n"
    code += "".join(f'int {name}(void) __attribute__((alias("no_device")));\n' for name in names)
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-w", "-fno-builtin", f"-Wl,-soname,{library}"]
    if "" not in versions:
        script = target / f"{library}.map"
        script.write_text(
            "".join(f"{node} {{ global: {' '.join(f'{n};' for n in sorted(of))} }};\n" for node, of in versions.items())
        )
        command.append(f"-Wl,--version-script={script}")
    subprocess.run([*command, "-x", "c", "-", "-o", str(target / library)], check=True, input=code, text=True)
    for script in target.glob("*.map"):
        script.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
