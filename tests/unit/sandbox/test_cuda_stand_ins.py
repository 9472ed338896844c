"""Stand-ins for CUDA: what is linked to libraries that are not there can be loaded, and finds no device."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from fumehood.sandbox.template import make_cuda_stand_ins

NO_DEVICE = 100
VERSIONED = "int cudaProbe(void) { return 0; }\nint cudaOther(void) { return 0; }"
PLAIN = "int ncclProbe(void) { return 0; }"
USER = """
int cudaProbe(void); int ncclProbe(void);
int ask_cuda(void) { return cudaProbe(); }
int ask_nccl(void) { return ncclProbe(); }
"""


def compile_library(file: Path, code: str, *options: str) -> None:
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{file.name}", "-x", "c", "-", "-x", "none", "-o", str(file)]
    subprocess.run([*command, *options], input=code, text=True, check=True)


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    """A folder with a library that is linked to two of CUDA's, one with symbol versions; those two are gone."""
    cuda, packages = tmp_path / "cuda", tmp_path / "packages"
    cuda.mkdir()
    packages.mkdir()
    (cuda / "map").write_text("libcudart.so.13 { global: cudaProbe; cudaOther; };\n")
    compile_library(cuda / "libcudart.so.13", VERSIONED, f"-Wl,--version-script={cuda}/map")
    compile_library(cuda / "libnccl.so.2", PLAIN)
    compile_library(packages / "libuser.so", USER, str(cuda / "libcudart.so.13"), str(cuda / "libnccl.so.2"))
    (packages / "v0.7.some-table.parquet").write_text("no library, whatever its name is like")
    return packages


def load(library: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """What a process says that finds libraries in `folder`, loads this one and calls both of its functions."""
    code = f"import ctypes; user = ctypes.CDLL({str(library)!r}); print(user.ask_cuda(), user.ask_nccl())"
    environment = {"LD_LIBRARY_PATH": str(folder)}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


def test_what_could_not_be_loaded_runs_and_finds_no_device(linked: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    before = load(linked / "libuser.so", target)
    assert "cannot open shared object file" in before.stderr
    make_cuda_stand_ins.main(linked, target)
    assert sorted(file.name for file in target.iterdir()) == ["libcudart.so.13", "libnccl.so.2"]
    after = load(linked / "libuser.so", target)
    assert (after.stdout, after.stderr) == (f"{NO_DEVICE} {NO_DEVICE}\n", "")


def test_what_the_packages_bring_is_not_stood_in_for(linked: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    compile_library(linked / "libnccl.so.2", PLAIN)
    make_cuda_stand_ins.main(linked, target)
    assert [file.name for file in target.iterdir()] == ["libcudart.so.13"]


def test_a_stand_in_has_only_what_is_asked_of_it(linked: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    make_cuda_stand_ins.main(linked, target)
    library = ctypes.CDLL(str(target / "libcudart.so.13"))
    assert library.cudaProbe() == NO_DEVICE
    assert not hasattr(library, "cudaOther")
