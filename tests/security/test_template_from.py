"""What a build step, a package or a recipe's folder cannot do: one line for each attack."""

import os
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fumehood.sandbox.template import catalog, interpreter
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.errors import TemplateError
from fumehood.settings import MIB, Settings
from tests import images
from tests.images import file, symlink
from tests.npm_registry import registry
from tests.templates import build_from, debian_root, import_image, left_unfinished, own_data, require_harmless

_APPLETS = (
    "sh",
    "cat",
    "cp",
    "chmod",
    "dd",
    "ln",
    "ls",
    "mkdir",
    "mknod",
    "mv",
    "rm",
    "wget",
    "yes",
    "mount",
    "nc",
)
MARK = "of-this-machine"
_DISK_BYTES = 64 * MIB
# What a step has to compute with on `tiny`.
GUEST_PYTHON = " ".join(interpreter.argv_at(Path(interpreter.MOUNT_POINT)))

HARMLESS = {
    "set-user-id programs": "cp /bin/busybox /su; chmod 6755 /su",
    "links to this machine": "ln -s /etc/shadow /link; ln -s ../../../../etc /up; rm -r /etc; ln -s /../../root /etc",
    "links in place of mount points": "rm -rf /tmp; ln -s /etc /tmp; mkdir -p /proc/../x; ln -sfn /etc /x/y",
    "a home that is a link": "rm -rf /home; ln -s /root /home",
    "programs under names that the build uses": "rm -rf /bin/ls /usr/bin; ln -s / /usr/bin",
}
REFUSED = {
    "a device": ("mknod /disk b 8 0", "failed"),
    "a mount": ("mkdir /m; mount -t tmpfs none /m", "failed"),
    "an address outside": ("nc -w 2 192.0.2.1 80", "failed"),
    "a service of this machine": ("nc -w 2 127.0.0.1 22", "failed"),
    "the guest's own code": ("rm -rf /.fumehood/lib", "failed"),
    "more than its disk": ("dd if=/dev/zero of=/zeros bs=1M", "failed"),
    "a message that is a terminal's command": ("echo -e '\\033]0;x\\007'; false", r"\\x1b\]0;x\\x07"),
    "more memory than it may have": (
        f"{GUEST_PYTHON} -c 'print(len(b\"x\" * (6 << 30)))'",
        "4096 MiB of memory are all it has",
    ),
}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data folder in which `tiny` is a template of a shell, with little disk for others."""
    found = Settings(data=own_data(tmp_path_factory.mktemp("from") / "data"), template_max_bytes=_DISK_BYTES)
    work = tmp_path_factory.mktemp("tiny")
    busybox = (debian_root(work, "busybox-static") / "bin/busybox").read_bytes()
    entries = [file("bin/busybox", busybox), file("kept", b"kept"), file("etc/x", b"x")]
    entries += [symlink(f"bin/{name}", "busybox") for name in _APPLETS]
    import_image(images.write_layout(work / "layout", [images.layer(entries)]), found, "tiny")
    return found


@pytest.fixture(scope="module", autouse=True)
def nothing_else_changes(settings: Settings) -> Iterator[None]:
    """After all attacks the parent, the guest's code and this machine's users are as they were."""
    roots = [template.root for template in catalog.list_templates(settings)]
    roots.append(catalog.list_templates(settings)[0].guest)

    def look() -> list[tuple[str, int, int, int, int]]:
        found: list[tuple[str, int, int, int, int]] = []
        for path in [path for root in roots for path in root.rglob("*")] + [Path("/etc/passwd"), Path("/etc")]:
            status = path.lstat()
            found.append((str(path), status.st_mode, status.st_size, status.st_mtime_ns, status.st_uid))
        return found

    before = look()
    yield
    assert look() == before


def build(settings: Settings, folder: Path, *lines: str) -> Template:
    """Build a recipe on `tiny`."""
    (folder / "Recipe").write_text("\n".join(["FROM tiny", *lines]))
    return build_from(folder / "Recipe", settings)


@pytest.mark.parametrize("step", HARMLESS.values(), ids=HARMLESS.keys())
def test_a_step_leaves_a_harmless_template(settings: Settings, tmp_path: Path, step: str) -> None:
    require_harmless(build(settings, tmp_path, f"RUN {step}"))
    assert left_unfinished(settings) == []


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED.keys())
def test_a_step_does_not_get(settings: Settings, tmp_path: Path, attack: tuple[str, str]) -> None:
    step, says = attack
    with pytest.raises(TemplateError, match=says) as refusal:
        build(settings, tmp_path, f"RUN {step}")
    assert refusal.value.message.startswith("Recipe, line 2, RUN failed (exit code ")
    assert "(steps run without network" in refusal.value.message
    assert left_unfinished(settings) == []


def test_a_step_sees_nothing_of_this_machine(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(MARK)
    built = build(settings, tmp_path, f"RUN ls / > /seen; cat {tmp_path}/secret >> /seen 2>/dev/null || true")
    seen = (built.root / "seen").read_text()
    assert "kept" in seen.split()
    assert MARK not in seen


def test_files_that_a_step_changes_stay_the_parent_s_in_the_parent(settings: Settings, tmp_path: Path) -> None:
    tiny = next(template for template in catalog.list_templates(settings) if template.name == "tiny")
    built = build(settings, tmp_path, "RUN echo more >> /kept; chmod 4700 /bin/busybox; rm /etc/x")
    assert (built.root / "kept").read_bytes() == b"keptmore\n"
    assert (tiny.root / "kept").read_bytes() == b"kept"
    assert (tiny.root / "bin/busybox").stat().st_mode & 0o7777 == 0o755
    assert (tiny.root / "etc/x").read_bytes() == b"x"


def test_what_lies_behind_a_link_in_a_recipe_s_folder_is_not_copied(settings: Settings, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text(MARK)
    inside = tmp_path / "inside"
    (inside / "data").mkdir(parents=True)
    (inside / "link").symlink_to(outside)
    (inside / "data/link").symlink_to(outside / "secret")
    os.mkfifo(inside / "data/pipe")
    for source in ("link", "link/secret", "data/link"):
        with pytest.raises(TemplateError, match="line 2: COPY follows no links"):
            build(settings, inside, f"COPY {source} /copied/")
    built = build(settings, inside, "COPY data /copied/")
    assert [path.name for path in (built.root / "copied").iterdir()] == ["link"]
    assert (built.root / "copied/link").readlink() == outside / "secret"
    require_harmless(built)


def test_a_copy_through_a_link_of_the_template_stays_in_it(settings: Settings, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "evil").write_text(MARK)
    built = build(
        settings,
        tmp_path,
        f"RUN mkdir -p {outside}; ln -s {outside} /into; ln -s ../../../../..{outside} /up",
        "COPY evil /into/evil",
        "COPY evil /up/evil",
    )
    assert [*outside.iterdir()] == []
    require_harmless(built)


# Packages


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the only place where pip looks for packages."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture(scope="module")
def on_base(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data folder with the template `base`."""
    return Settings(data=own_data(tmp_path_factory.mktemp("on-base") / "data", "base"))


def write_wheel(folder: Path, name: str, files: dict[str, str], requires: str | None = None) -> None:
    """A wheel with these files, and perhaps a dependency."""
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
    if requires is not None:
        metadata += f"Requires-Dist: {requires}\n"
    information = {
        "METADATA": metadata,
        "WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        for file_name, text in files.items() | {(f"{name}-1.0.dist-info/{n}", t) for n, t in information.items()}:
            wheel.writestr(file_name, text)


def write_sdist(folder: Path, name: str, marker: Path) -> Path:
    """A source package whose set-up leaves a marker on the machine that builds it."""
    source = folder / f"{name}-1.0"
    source.mkdir()
    (source / "setup.py").write_text(
        f"open({str(marker)!r}, 'w')\nimport setuptools\nsetuptools.setup(name='{name}')\n"
    )
    archive = folder / f"{name}-1.0.tar.gz"
    subprocess.run(["tar", "-C", folder, "-czf", archive, source.name], check=True)
    shutil.rmtree(source)
    return archive


def requirements(folder: Path, text: str) -> Path:
    """A requirements file."""
    (folder / "requirements.txt").write_text(text)
    return folder / "requirements.txt"


def test_a_package_that_is_only_source_is_refused_and_not_built(
    on_base: Settings, wheels: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    write_sdist(wheels, "onlysource", marker)
    with pytest.raises(TemplateError, match="there is no wheel of onlysource for Python 3"):
        build_from(requirements(tmp_path, "onlysource"), on_base, parent="base")
    assert not marker.exists()


def test_a_dependency_that_names_source_at_an_address_is_not_built(
    on_base: Settings, wheels: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    archive = write_sdist(elsewhere, "evil", marker)
    write_wheel(wheels, "innocent", {"innocent.py": ""}, requires=f"evil @ file://{archive}")
    with pytest.raises(TemplateError, match="fetching packages runs no programs"):
        build_from(requirements(tmp_path, "innocent"), on_base, parent="base")
    assert not marker.exists()


def test_what_a_wheel_brings_runs_and_lies_in_the_sandbox_only(on_base: Settings, wheels: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    climbing = "../" * 12 + str(tmp_path / "climbed").lstrip("/")
    write_wheel(wheels, "startup", {"startup.pth": f"import os; open({str(marker)!r}, 'w')\n", "startup.py": ""})
    write_wheel(wheels, "climber", {climbing: MARK, "climber.py": ""})
    with pytest.raises(TemplateError, match=r"requirements\.txt, line 1, PIP failed"):
        build_from(requirements(tmp_path, "climber"), on_base, parent="base")
    require_harmless(build_from(requirements(tmp_path, "startup"), on_base, parent="base"))
    assert not marker.exists()
    assert not (tmp_path / "climbed").exists()


def test_scripts_of_npm_packages_do_not_run(on_base: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    scripts = dict.fromkeys(("preinstall", "install", "postinstall", "prepare"), f"touch {marker} /marker")
    with registry({"evil": {"version": "1.0.0", "scripts": scripts}}) as address:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", address)
        (tmp_path / "package.json").write_text('{"dependencies": {"evil": "1.0.0"}}')
        built = build_from(tmp_path / "package.json", on_base, parent="base")
    assert (built.root / "usr/local/lib/node_modules/evil/package.json").is_file()
    assert not marker.exists()
    assert not (built.root / "marker").exists()


@pytest.mark.parametrize("address", ["git+file:///{0}", "file:{0}", "{1}files/other.tgz"])
def test_an_npm_package_whose_dependency_is_not_the_registry_s_is_refused(
    on_base: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository/package.json").write_text('{"name": "other", "version": "1.0.0"}')
    packages: dict[str, dict[str, object]] = {"evil": {"version": "1.0.0"}, "other": {"version": "1.0.0"}}
    with registry(packages) as registry_address:
        packages["evil"]["dependencies"] = {"other": address.format(tmp_path / "repository", registry_address)}
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", registry_address)
        (tmp_path / "package.json").write_text('{"dependencies": {"evil": "^1.0.0"}}')
        with pytest.raises(TemplateError, match=r"npm: .* does not come from a registry|node failed"):
            build_from(tmp_path / "package.json", on_base, parent="base")
