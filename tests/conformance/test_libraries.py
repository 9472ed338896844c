"""What the template `standard` promises is there, seen from a session of it."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from fumehood.sandbox.template import recipe
from tests.service import Service, Session

IMPORTS = """
import importlib, importlib.metadata, json, sys, warnings
warnings.simplefilter("ignore")
failed = {}
for name in json.loads(sys.argv[1]):
    files = importlib.metadata.distribution(name).files or []
    parts = [file.parts for file in files if file.suffix == ".py"]
    modules = {p[0].removesuffix(".py") for p in parts if len(p) == 1 or p[1:] == ("__init__.py",)}
    for module in sorted(m for m in modules if m.isidentifier() and not m.startswith("_")):
        try:
            importlib.import_module(module)
        except BaseException as error:
            failed[f"{name}: {module}"] = repr(error)
print()
print(json.dumps(failed))
"""
# Needs another package, which is an extra of duckdb's.
NOT_IMPORTABLE = {"duckdb: adbc_driver_duckdb"}
# A program: its modules put a botocore of their own in the place of everybody's.
ON_ITS_OWN = {"awscli"}
NPM_PACKAGES = ("axios", "cheerio", "lodash", "uuid", "zod")
PROGRAMS = (
    "aws bc bsdtar bzip2 convert curl deno ffmpeg ffprobe file fc-list gawk git gs ipython jq less make node npm npx "
    "pandoc patch pdftoppm pdftotext pip python python3 rsync sqlite3 tree unzip vi wget xz zip zstd"
)


@pytest.fixture(scope="module")
def standard(standard_server: Service) -> Iterator[Session]:
    """A session of the template `standard`, for tests that only look."""
    session = Session(standard_server.client())
    yield session
    session.stop()


def printed(session: Session, command: str) -> str:
    """What a command prints; it must succeed."""
    result: dict[str, Any] = session.sh(command)["structuredContent"]
    assert result["exitCode"] == 0, result
    return result["stdout"]


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """The version of each Python package of the recipe."""
    return {normal(name): version for name, version in (pin.split("==") for pin in recipe.load("standard").wheels)}


def test_pip_lists_what_the_recipe_pins_and_nothing_else_but_debians_pip(standard: Session) -> None:
    listed = json.loads(printed(standard, "pip list --format json 2>/dev/null"))
    installed = {normal(package["name"]): package["version"] for package in listed}
    assert {name: version for name, version in installed.items() if name in pinned()} == pinned()
    assert installed.keys() - pinned().keys() <= {"pip", "wheel"}


def test_only_what_the_recipe_leaves_out_is_missing_to_any_package(standard: Session) -> None:
    result = standard.sh("pip check 2>/dev/null")["structuredContent"]
    missing = re.findall(r"requires (\S+), which is not installed", result["stdout"])
    assert set(missing) == set(recipe.load("standard").left_out)
    assert len(missing) == len(result["stdout"].splitlines())


def test_every_python_package_can_be_imported_all_in_one_process(standard: Session) -> None:
    written = standard.invoke("writeFiles", content=[{"path": "imports.py", "text": IMPORTS}])
    assert not written["isError"]
    for together in (pinned().keys() - ON_ITS_OWN, ON_ITS_OWN):
        names = json.dumps(sorted(together))
        failed = json.loads(printed(standard, f"python -W ignore imports.py '{names}' 2>/dev/null").splitlines()[-1])
        assert {name: why for name, why in failed.items() if name not in NOT_IMPORTABLE} == {}


def test_the_programs_are_on_the_path(standard: Session) -> None:
    printed(standard, f"bash -c 'type -P {PROGRAMS}'")


def test_the_aws_command_runs(standard: Session) -> None:
    assert printed(standard, "aws --version").startswith("aws-cli/")


def test_ffmpeg_encodes_what_ffprobe_reads(standard: Session) -> None:
    make = "ffmpeg -v error -f lavfi -i testsrc=duration=1:size=64x48:rate=5 -pix_fmt yuv420p -c:v libx264 -y a.mp4"
    read = "ffprobe -v error -show_entries stream=codec_name,width,height -of csv=p=0 a.mp4"
    assert printed(standard, f"{make} && {read}").strip() == "h264,64,48"


def test_imagemagick_reads_pdf(standard: Session) -> None:
    write = "from reportlab.pdfgen.canvas import Canvas; c = Canvas('a.pdf', (100, 50)); c.drawString(9, 9, 'x')"
    made = printed(standard, f'python -c "{write}; c.save()" && convert a.pdf a.png && file -b a.png')
    assert made.startswith("PNG image data, 100 x 50")


@pytest.mark.parametrize("character", ["中", "漢", "あ", "ア", "한"])
def test_there_is_a_font_with_chinese_japanese_and_korean(standard: Session, character: str) -> None:
    assert "wqy-zenhei" in printed(standard, f"fc-list :charset={ord(character):x} file")


@pytest.mark.parametrize("folder", ["~", "/tmp"])
def test_node_finds_the_npm_packages_from_any_folder_by_require_and_by_import(standard: Session, folder: str) -> None:
    loaded = "; ".join(f"require('{name}')" for name in NPM_PACKAGES)
    imported = " ".join(f"import '{name}';" for name in NPM_PACKAGES)
    assert printed(standard, f'cd {folder} && node -e "{loaded}; console.log(6 * 7)"').strip() == "42"
    command = f"""cd {folder} && echo "{imported} console.log(6 * 7)" > a.mjs && node a.mjs"""
    assert printed(standard, command).strip() == "42"


@pytest.mark.parametrize("folder", ["~", "/tmp"])
def test_deno_finds_the_npm_packages_from_any_folder_without_a_network(standard: Session, folder: str) -> None:
    imported = " ".join(f"import 'npm:{name}';" for name in NPM_PACKAGES)
    code = f"{imported} import {{ z }} from 'zod'; const n: number = z.number().parse(42); console.log(n)"
    command = f'cd {folder} && echo "{code}" > a.ts && NO_COLOR=1 deno run -A a.ts'
    assert printed(standard, command).strip() == "42"


def test_an_integer_program_is_solved_by_cvxpy_beside_ortools(standard: Session) -> None:
    code = """
import ortools.sat.python.cp_model, cvxpy
x = cvxpy.Variable(2, integer=True)
problem = cvxpy.Problem(cvxpy.Maximize(cvxpy.sum(x)), [x <= 2.5])
print(round(problem.solve()))
"""
    assert standard.run(code)["structuredContent"]["stdout"] == "4"
