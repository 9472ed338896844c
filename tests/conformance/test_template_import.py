"""Imported images as templates of real sessions, used through boto3."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fumehood.sandbox.template import catalog
from fumehood.sandbox.template.catalog import Template
from fumehood.sandbox.template.errors import TemplateError
from fumehood.settings import Settings
from tests import images
from tests.images import file, folder, symlink
from tests.service import COMMAND, Service, Session
from tests.templates import debian_root, import_image, own_data

_APPLETS = ("sh", "cat", "ls", "echo", "id", "pwd", "sleep", "env")


@pytest.fixture(scope="module")
def foreign_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system with a shell and a Python without IPython, and without anything of fumehood's."""
    root = debian_root(tmp_path_factory.mktemp("root"), "busybox-static", "python3")
    for name in _APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    shutil.rmtree(root / "dev")
    return root


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A data folder without built-in templates."""
    return Settings(data=own_data(tmp_path_factory.mktemp("conformance") / "data"))


@pytest.fixture(scope="module")
def with_python(foreign_root: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A template of two layers, from a compressed OCI archive."""
    work = tmp_path_factory.mktemp("with-python")
    later = images.layer(
        [
            folder("srv/app", owner=1000),
            file("srv/app/data.txt", b"of the image\n", owner=1000, mode=0o600),
            file("bin/.wh.pwd"),
            symlink("srv/app/link", "/srv/app/data.txt"),
        ]
    )
    layout = images.write_layout(
        work / "layout",
        [images.layer_of(foreign_root), later],
        compress=True,
        environment=["PATH=/srv/app:/usr/bin:/bin", "LEVEL=3", "HOME=/root"],
    )
    return import_image(images.write_oci_archive(work / "image.tar", layout), settings, "with-python")


@pytest.fixture(scope="module")
def without_python(foreign_root: Path, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A template of a shell and nothing else, from an archive as `docker save` writes it."""
    entries = [file("bin/busybox", (foreign_root / "bin/busybox").read_bytes())]
    entries += [symlink(f"bin/{name}", "busybox") for name in _APPLETS]
    archive = tmp_path_factory.mktemp("without-python") / "image.tar"
    return import_image(images.write_docker_archive(archive, [images.layer(entries)]), settings, "without-python")


@pytest.fixture(scope="module")
def own_server(with_python: Template, without_python: Template, settings: Settings) -> Iterator[Service]:
    """A server with both templates; the one with a Python is its default."""
    assert without_python.is_current
    server = Service(settings.data, {"FUMEHOOD_TEMPLATE": with_python.name})
    yield server
    server.stop()


@pytest.fixture(scope="module")
def python_session(own_server: Service) -> Session:
    """A session of the image with a Python."""
    return Session(own_server.client())


@pytest.fixture(scope="module")
def shell_session(own_server: Service, without_python: Template) -> Session:
    """A session of the image without one, which a custom interpreter names."""
    made = own_server.client("bedrock-agentcore-control").create_code_interpreter(
        name="shell",
        networkConfiguration={"networkMode": "SANDBOX"},
        tags={"fumehood:template": without_python.name},
    )
    return Session(own_server.client(), made["codeInterpreterId"])


def text_of(result: dict[str, Any]) -> str:
    """A result's text."""
    return "".join(block["text"] for block in result["content"] if block["type"] == "text")


def test_python_of_an_image_keeps_state_with_an_ipython_that_it_does_not_have(python_session: Session) -> None:
    assert python_session.run("import sys, IPython; x = 6; IPython.__file__")["structuredContent"]["stdout"] == (
        "'/.fumehood/lib/ipython/IPython/__init__.py'"
    )
    assert text_of(python_session.run("x * 7")) == "42"
    assert python_session.run("1/0")["isError"]


def test_commands_of_an_image_run_as_the_user(python_session: Session) -> None:
    printed = text_of(python_session.sh("id -un; id -u; cd; pwd 2>&1 || echo $PWD; echo $HOME $LEVEL"))
    assert printed.splitlines() == ["sandbox", "1000", "/home/sandbox", "/home/sandbox 3"]


def test_an_image_s_layers_and_owners_are_there(python_session: Session) -> None:
    assert text_of(python_session.sh("cat /srv/app/link; ls /bin/pwd")).startswith("of the image\n")
    assert python_session.sh("ls /bin/pwd")["isError"]


def test_the_image_s_path_is_behind_the_user_s(python_session: Session) -> None:
    assert text_of(python_session.sh("echo $PATH")).strip() == "/home/sandbox/.local/bin:/srv/app:/usr/bin:/bin"


@pytest.mark.parametrize("which", ["python_session", "shell_session"])
def test_files_work_in_an_image(request: pytest.FixtureRequest, which: str) -> None:
    session: Session = request.getfixturevalue(which)
    session.invoke("writeFiles", content=[{"path": "a/b.txt", "text": "text"}])
    assert text_of(session.sh("cat a/b.txt")).strip() == "text"
    [block] = session.invoke("readFiles", paths=["a/b.txt"])["content"]
    assert block["resource"]["text"] == "text"


def test_commands_work_in_an_image_without_python(shell_session: Session) -> None:
    assert text_of(shell_session.sh("echo $((6 * 7))")).strip() == "42"


@pytest.mark.parametrize(
    ("language", "runtime"), [("python", "python"), ("javascript", "deno"), ("typescript", "nodejs")]
)
def test_code_in_an_image_without_the_runtime_says_so(shell_session: Session, language: str, runtime: str) -> None:
    result = shell_session.invoke("executeCode", language=language, runtime=runtime, code="1")
    assert result["isError"]
    assert f"this session's template has no {runtime}" in text_of(result)


def test_the_same_image_is_imported_once(with_python: Template, settings: Settings, tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", [images.layer([file("a")])])
    first = import_image(layout, settings, "once")
    assert import_image(layout, settings, "once") == first
    (tmp_path / "other").mkdir()
    other = import_image(images.write_layout(tmp_path / "other/l", [images.layer([file("b")])]), settings, "once")
    assert other.key != first.key
    named = [template for template in catalog.list_templates(settings) if template.name == "once"]
    assert {template.key: template.is_current for template in named} == {first.key: False, other.key: True}
    # The one that was asked for last is the one of its name.
    assert import_image(layout, settings, "once").key == first.key
    named = [template for template in catalog.list_templates(settings) if template.name == "once"]
    assert {template.key: template.is_current for template in named} == {first.key: True, other.key: False}
    assert with_python.is_current


@pytest.mark.parametrize("compress", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_a_compressed_archive_is_imported(settings: Settings, tmp_path: Path, compress: str, kind: str) -> None:
    layers = [images.layer([file("a")])]
    if kind == "oci":
        archive = images.write_oci_archive(tmp_path / "image", images.write_layout(tmp_path / "layout", layers))
    else:
        archive = images.write_docker_archive(tmp_path / "image", layers)
    subprocess.run([compress, archive], check=True)
    [compressed] = tmp_path.glob("image.*")
    assert (import_image(compressed, settings, "compressed").root / "a").read_bytes() == b"foreign"


def test_one_of_several_images_is_chosen_by_its_tag(settings: Settings, tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", [images.layer([file("a")])], tags=["one", "two"])
    with pytest.raises(TemplateError, match="more than one image"):
        import_image(layout, settings, "tagged")
    assert (import_image(layout, settings, "tagged", tag="two").root / "a").read_bytes() == b"foreign"
    with pytest.raises(TemplateError, match="reading the image failed"):
        import_image(layout, settings, "tagged", tag="three")


def test_an_image_for_other_machines_is_refused(settings: Settings, tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", [images.layer([file("a")])], architecture="s390x")
    with pytest.raises(TemplateError, match="the image is for linux/s390x; this machine runs linux/"):
        import_image(layout, settings, "other")


@pytest.mark.parametrize("name", ["base", "Upper", "a/b", "../a", "", "a" * 41, "0123456789abcdef", "a.b", "-a", "a-"])
def test_a_name_that_is_taken_or_no_name_is_refused(settings: Settings, tmp_path: Path, name: str) -> None:
    layout = images.write_layout(tmp_path / "layout", [images.layer([file("a")])])
    with pytest.raises(TemplateError, match=r"built-in template|cannot be a template's name"):
        import_image(layout, settings, name)


def test_show_tells_where_an_image_came_from_and_what_was_left_out(with_python: Template, settings: Settings) -> None:
    shown = subprocess.run(
        [COMMAND, "template", "show", with_python.name],
        env={"PATH": os.environ["PATH"], "FUMEHOOD_DATA": str(settings.data)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.splitlines()
    assert "kind: imported image" in shown
    assert any(line.startswith("from: image.tar sha256:") for line in shown)
    assert "variable: LEVEL=3" in shown
    assert "note: its Python has no IPython: executeCode of python uses the guest's own" in shown
    assert "isolation: foreign programs ran in gVisor only, without network" in shown
