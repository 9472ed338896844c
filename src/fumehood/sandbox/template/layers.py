"""Layers: what a template of one's own has on top of another one, as a file in the manner of a Dockerfile says it.

    FROM standard
    PIP humanize==4.* -r requirements.txt
    NPM slugify@1
    COPY data/ /srv/data/
    ENV LEVEL=3
    WORKDIR /srv
    RUN python3 prepare.py

A requirements.txt and a package.json are such files of one layer. Nothing is fetched or run here.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

from fumehood.sandbox.template import environment
from fumehood.sandbox.template.errors import TemplateError, printable

_FILE_BYTES_MAX = 1024 * 1024
_HASH = re.compile(r"\s--hash=(sha256:[0-9a-f]{64})(?=\s|$)")
# A name of the registry, a version or range or tag of it; no addresses, no files.
_NPM_NAME = r"(?:@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*"
_NPM_PACKAGE = re.compile(rf"({_NPM_NAME})(?:@([^@/:]*))?")
_NPM_RANGE = re.compile(r"[^/:]*|npm:[^:]+")
_NETWORK_PROGRAMS = frozenset({"apt", "apt-get", "apk", "dnf", "yum", "curl", "wget", "conda"})
_NOT_SUPPORTED = frozenset(
    {"ADD", "ARG", "CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "SHELL"}
    | {"STOPSIGNAL", "USER", "VOLUME"}
)


@dataclass(frozen=True)
class Copy:
    """Files and folders beside the recipe, brought to `target` in the template."""

    line: int
    sources: tuple[str, ...]
    target: str


@dataclass(frozen=True)
class Run:
    """A shell command, run in the sandbox as its root and without network."""

    line: int
    command: str


@dataclass(frozen=True)
class Pip:
    """Python packages, each a requirement with its hashes, as pip takes them."""

    line: int
    requirements: tuple[str, ...]


@dataclass(frozen=True)
class Npm:
    """npm packages by name, to a version, range or tag of the registry; the lock that pins them, if there is one."""

    line: int
    packages: Mapping[str, str]
    lock: str | None = None


@dataclass(frozen=True)
class Env:
    """Variables of the environment, of later steps and of user code; `$NAME` in a value is one set before."""

    line: int
    variables: Mapping[str, str]


@dataclass(frozen=True)
class Workdir:
    """The folder of later steps."""

    line: int
    path: str


Step = Copy | Run | Pip | Npm | Env | Workdir


@dataclass(frozen=True)
class Layers:
    """Steps on top of the template `parent`; what they name lies in `folder`."""

    parent: str
    steps: tuple[Step, ...]
    folder: Path
    texts: tuple[str, ...] = field(default=())
    """Every text that was read: what the steps are made from."""


def read(file: Path, parent: str | None, default_parent: str) -> Layers:
    """Read a requirements file (`*.txt`), a package.json, or a recipe (any other name).

    `parent` is the template it goes on; a recipe says that itself. Raises TemplateError, naming the line and what would
    be right.
    """
    text = _read_text(file)
    folder = file.absolute().parent
    if file.name == "package.json":
        return _of_package_json(file, text, parent or default_parent)
    if file.suffix == ".txt":
        step = Pip(1, parse_requirements(text, file.name))
        if not step.requirements:
            raise TemplateError(f"{file} names no package")
        return Layers(parent or default_parent, (step,), folder, (text,))
    if parent is not None:
        raise TemplateError(f"{file} is a recipe: its FROM line names the template it goes on, and --on is not for it")
    return _Recipe(file, text).read()


def parse_requirements(text: str, name: str) -> tuple[str, ...]:
    """The requirements in the text of a requirements file: names, extras, versions, markers and hashes only."""
    found: list[str] = []
    for number, line in _logical_lines(text, re.compile(r"(^|\s+)#.*$")):
        hashes = _HASH.findall(line)
        stripped = _HASH.sub("", line).strip()
        found.append(_requirement(stripped, f"{name}, line {number}") + "".join(f" --hash={h}" for h in hashes))
    return tuple(found)


def _requirement(text: str, where: str) -> str:
    if text.startswith("-"):
        option = printable(text.split()[0].split("=")[0])
        raise TemplateError(
            f"{where}: {option} is not taken: a line is a package, say humanize==4.9.0, from the index that this "
            "machine's pip uses"
        )
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise TemplateError(f"{where}: {printable(text)!r} is no package with a version, say humanize==4.9.0") from None
    if requirement.url is not None:
        raise TemplateError(
            f"{where}: {requirement.name} from an address is not taken: only wheels of the package index"
        )
    return str(requirement)


def _of_package_json(file: Path, text: str, parent: str) -> Layers:
    lock_file = file.with_name("package-lock.json")
    lock = _read_text(lock_file) if lock_file.exists() else None
    step = Npm(1, _dependencies(text, file.name), lock)
    return Layers(parent, (step,), file.absolute().parent, (text, lock or ""))


def _dependencies(text: str, name: str) -> dict[str, str]:
    try:
        table = json.loads(text)
        found = {**table.get("dependencies", {}), **table.get("optionalDependencies", {})}
    except (ValueError, AttributeError, TypeError):
        raise TemplateError(f"{name} is not a JSON object with dependencies") from None
    if not found:
        raise TemplateError(f"{name} has no dependencies")
    for package, wanted in found.items():
        if not re.fullmatch(_NPM_NAME, package) or not isinstance(wanted, str) or not _NPM_RANGE.fullmatch(wanted):
            raise TemplateError(
                f'{name}: {printable(package)} is not a version of a package in the registry, say "slugify": "^1.6.6"'
            )
    return {str(package): str(wanted) for package, wanted in found.items()}


def _read_text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise TemplateError(f"{file} cannot be read: {error.strerror}") from None
    if len(content) > _FILE_BYTES_MAX:
        raise TemplateError(f"{file} is larger than {_FILE_BYTES_MAX} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise TemplateError(f"{file} is not text in UTF-8") from None


def _logical_lines(text: str, comment: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Each line that says something, with its number: comments away, lines that end with a backslash joined."""
    begun: int | None = None
    parts: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun or number
        stripped = comment.sub("", line).rstrip()
        if stripped.endswith("\\"):
            parts.append(stripped[:-1].strip())
            continue
        joined = " ".join([*parts, stripped.strip()]).strip()
        if joined:
            yield begun, joined
        begun, parts = None, []
    if parts:
        yield begun or 1, " ".join(parts).strip()


class _Recipe:
    """Reads a recipe, one instruction after another."""

    def __init__(self, file: Path, text: str) -> None:
        self._file = file
        self._folder = file.absolute().parent
        self._text = text
        self._texts = [text]
        self._parent: str | None = None
        self._steps: list[Step] = []
        self._readers: dict[str, Callable[[int, str], Step]] = {
            "COPY": self._copy,
            "RUN": self._run,
            "PIP": self._pip,
            "NPM": self._npm,
            "ENV": self._env,
            "WORKDIR": self._workdir,
        }

    def read(self) -> Layers:
        """The whole of it."""
        for line, text in _logical_lines(self._text, re.compile(r"^\s*#.*$")):
            instruction, _, rest = text.partition(" ")
            self._instruction(line, instruction.upper(), rest.strip())
        if self._parent is None:
            raise TemplateError(f"{self._file.name} has no FROM line, which names the template it goes on")
        return Layers(self._parent, tuple(self._steps), self._folder, tuple(self._texts))

    def _instruction(self, line: int, name: str, rest: str) -> None:
        if self._parent is None:
            self._parent = self._from(line, name, rest)
            return
        if name == "FROM":
            raise self._error(line, "a second FROM: a template is made in one stage")
        reader = self._readers.get(name)
        if reader is None:
            known = ", ".join(["FROM", *self._readers])
            what = "is not supported" if name in _NOT_SUPPORTED else "is no instruction"
            raise self._error(line, f"{printable(name[:40])} {what}; there is {known}")
        if not rest:
            raise self._error(line, f"{name} of nothing")
        self._steps.append(reader(line, rest))

    def _from(self, line: int, name: str, rest: str) -> str:
        if name != "FROM":
            raise self._error(line, "the first instruction is FROM, which names the template it goes on")
        if len(rest.split()) != 1:
            raise self._error(line, "FROM takes the name of one template, say FROM standard")
        return rest

    def _copy(self, line: int, rest: str) -> Copy:
        *sources, target = self._words(line, rest)
        if not sources or any(word.startswith("--") for word in sources):
            raise self._error(line, "COPY takes files or folders beside the recipe and a target, and no options")
        for source in sources:
            path = PurePosixPath(source)
            if path.is_absolute() or ".." in path.parts:
                raise self._error(line, f"{printable(source)} is outside the recipe's folder")
        if len(sources) > 1 and not target.endswith("/"):
            raise self._error(line, "COPY of several files takes a folder as target: end it with /")
        return Copy(line, tuple(sources), target)

    def _run(self, line: int, rest: str) -> Run:
        if rest.startswith("["):
            raise self._error(line, "RUN takes a shell command, not a list")
        for command in _simple_commands(rest):
            self._refuse_network(line, command)
        return Run(line, rest)

    def _refuse_network(self, line: int, command: list[str]) -> None:
        program = PurePosixPath(command[0]).name
        arguments = command[1:]
        if program.startswith("python") and arguments[:2] == ["-m", "pip"]:
            program, arguments = "pip", arguments[2:]
        if program in ("pip", "pip3") and arguments[:1] == ["install"] and "--no-index" not in arguments:
            raise self._error(line, "RUN has no network: name Python packages in a PIP line, say PIP humanize==4.9.0")
        if program in ("npm", "yarn", "pnpm") and arguments[:1] in (["install"], ["i"], ["ci"], ["add"]):
            raise self._error(line, "RUN has no network: name npm packages in an NPM line, say NPM slugify@1.6.6")
        if program in _NETWORK_PROGRAMS or (program == "git" and arguments[:1] == ["clone"]):
            raise self._error(
                line,
                f"RUN has no network, which {program} needs: this version builds without one. Fetch it beforehand and "
                "COPY it, or bring an image with `fumehood template import`",
            )

    def _pip(self, line: int, rest: str) -> Pip:
        found: list[str] = []
        words = iter(self._words(line, rest))
        for word in words:
            if word in ("-r", "--requirement"):
                name = next(words, "")
                found += parse_requirements(self._beside(line, name), name)
            else:
                found.append(_requirement(word, self._where(line)))
        if not found:
            raise self._error(line, "PIP names no package")
        return Pip(line, tuple(found))

    def _npm(self, line: int, rest: str) -> Npm:
        words = self._words(line, rest)
        if words[0].endswith("package.json"):
            if len(words) != 1:
                raise self._error(line, "NPM takes one package.json, or names of packages")
            lock_name = words[0].removesuffix("package.json") + "package-lock.json"
            lock = self._beside(line, lock_name) if (self._folder / lock_name).exists() else None
            return Npm(line, _dependencies(self._beside(line, words[0]), words[0]), lock)
        packages: dict[str, str] = {}
        for word in words:
            match = _NPM_PACKAGE.fullmatch(word)
            if match is None:
                raise self._error(line, f"{printable(word)!r} is no package of the registry, say slugify@1.6.6")
            packages[match[1]] = match[2] or "latest"
        return Npm(line, packages)

    def _env(self, line: int, rest: str) -> Env:
        found: dict[str, str] = {}
        for word in self._words(line, rest):
            name, equals, value = word.partition("=")
            if not equals:
                raise self._error(line, "ENV takes NAME=value, several of them if need be")
            try:
                environment.require(name, value)
            except TemplateError as error:
                raise self._error(line, error.message) from None
            found[name] = value
        return Env(line, found)

    def _workdir(self, line: int, rest: str) -> Workdir:
        words = self._words(line, rest)
        if len(words) != 1:
            raise self._error(line, "WORKDIR takes one folder")
        return Workdir(line, words[0])

    def _beside(self, line: int, name: str) -> str:
        """The text of a file beside the recipe."""
        path = PurePosixPath(name)
        if not name or path.is_absolute() or ".." in path.parts:
            raise self._error(line, f"{printable(name) or 'a file'} is outside the recipe's folder")
        file = self._folder / path
        if not file.resolve().is_relative_to(self._folder.resolve()):
            raise self._error(line, f"{printable(name)} leads outside the recipe's folder")
        text = _read_text(file)
        self._texts.append(text)
        return text

    def _words(self, line: int, rest: str) -> list[str]:
        try:
            return shlex.split(rest)
        except ValueError as error:
            raise self._error(line, f"{error}") from None

    def _where(self, line: int) -> str:
        return f"{self._file.name}, line {line}"

    def _error(self, line: int, problem: str) -> TemplateError:
        return TemplateError(f"{self._where(line)}: {problem}")


def _simple_commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell line as far as they can be told apart without a shell: for early refusals only."""
    for part in re.split(r"&&|\|\||[;|&\n]", text):
        try:
            words = shlex.split(part)
        except ValueError:
            words = part.split()
        while words and re.fullmatch(r"\w+=.*", words[0]):
            words = words[1:]
        if words:
            yield words
