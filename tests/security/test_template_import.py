"""A hostile container image becomes a harmless template, or none: one line for each attack."""

import asyncio
import gzip
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from fumehood.sandbox.template import catalog, image_tools, own
from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.progress import Silent
from fumehood.settings import MIB, Settings
from tests import images
from tests.images import Entry, file, folder, hardlink, symlink
from tests.templates import SMALL_BYTES, import_image, left_unfinished, own_data, require_harmless

UP = "../" * 30
VICTIM = Path(tempfile.gettempdir(), f"fumehood-victim-{os.getpid()}")
"""A folder of this machine that the attacks are after; it has a file `kept`."""
MARK = b"of this machine"
_CAPABILITY = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
# A GNU sparse file of 1 TiB with one byte at its end.
_HOLE = b"1\n1099511627775\n1\n".ljust(512, b"\0") + b"x"
_SPARSE = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": "a",
    "GNU.sparse.realsize": "1099511627776",
}


class Attack(NamedTuple):
    """The entries of each layer."""

    layers: list[list[Entry]]
    refused: str | None = None
    """What the refusal says; None where the rest of the image is imported."""


ATTACKS: dict[str, Attack] = {
    "a name that climbs": Attack([[file(f"{UP}{VICTIM}/kept"), file("a")]]),
    "an absolute name": Attack([[file(f"{VICTIM}/kept"), file("a")]]),
    "a file through an absolute link": Attack([[symlink("x", str(VICTIM)), file("x/kept")]]),
    "a file through a climbing link": Attack([[symlink("x", f"{UP}{VICTIM}"), file("x/kept")]]),
    "a file through a chain of links": Attack(
        [[folder("a"), symlink("a/b", ".."), symlink("c", f"a/b/{UP}"), symlink("d", f"c{VICTIM}"), file("d/kept")]]
    ),
    "a link replaced in a later layer": Attack([[symlink("x", str(VICTIM))], [file("x/kept")]]),
    "a folder where a link was": Attack([[symlink("x", str(VICTIM))], [folder("x"), file("x/kept")]]),
    "a hard link to outside, written through": Attack(
        [[hardlink("x", f"{VICTIM}/kept"), file("x")]], refused="unpacking the image failed"
    ),
    "a climbing hard link": Attack([[hardlink("x", f"{UP}{VICTIM}/kept")]], refused="unpacking the image failed"),
    "a hard link through a link": Attack(
        [[symlink("x", str(VICTIM)), hardlink("y", "x/kept"), file("y")]], refused="unpacking the image failed"
    ),
    "a hard link to a link": Attack([[symlink("x", f"{VICTIM}/kept"), hardlink("y", "x"), file("y")]]),
    "a whiteout that climbs": Attack([[file("a")], [file(f"{UP}{VICTIM}/.wh.kept")]]),
    "a whiteout through a link": Attack([[symlink("x", str(VICTIM))], [file("x/.wh.kept")]]),
    "a whiteout of everything through a link": Attack([[symlink("x", str(VICTIM))], [file("x/.wh..wh..opq")]]),
    "a whiteout of the folder above": Attack([[file("a")], [file(".wh...")]], refused="failed"),
    "the root as a link": Attack([[symlink(".", str(VICTIM)), file("kept")]], refused="failed"),
    "the root as a file": Attack([[file(".")]], refused="failed"),
    "links in place of mount points": Attack(
        [[symlink(name, str(VICTIM)) for name in (".fumehood", "proc", "sys", "dev", "tmp")]]
    ),
    "a link in place of the build's mount point": Attack([[symlink(".fumehood-build", str(VICTIM))]]),
    "links in place of folders that settling writes to": Attack(
        [[symlink(name, f"{UP}{VICTIM}") for name in ("etc", "home", "var", "run", "usr")]]
    ),
    "links in place of files that settling writes": Attack(
        [[symlink(f"etc/{name}", f"{VICTIM}/kept") for name in ("passwd", "group", "shadow", "hosts", "environment")]]
    ),
    "folders in place of files that settling writes": Attack(
        [[folder("etc/passwd"), folder("etc/hosts")]], refused="settling the file system failed"
    ),
    "a loop of links": Attack([[symlink("etc", "home"), symlink("home", "etc")]]),
    "a block device": Attack([[Entry("d/disk", tarfile.BLKTYPE), file("a")]]),
    "a character device": Attack([[Entry("d/memory", tarfile.CHRTYPE), file("a")]]),
    "a pipe": Attack([[Entry("d/pipe", tarfile.FIFOTYPE), file("a")]]),
    "set-user-id and set-group-id": Attack([[file("su", mode=0o6755), folder("sg", mode=0o2775)]]),
    "a file capability": Attack([[file("a", pax={"SCHILY.xattr.security.capability": _CAPABILITY})]]),
    "extended attributes": Attack(
        [[file("a", pax={"SCHILY.xattr.user.x": "y", "SCHILY.xattr.trusted.overlay.redirect": str(VICTIM)})]]
    ),
    "an owner beyond all users": Attack([[file("a", owner=2**31 + 5)]]),
    "names that are not UTF-8": Attack([[file("bad-\udcff\udcfe"), file("a")]]),
    "names with control characters": Attack([[file("a\nb"), file("\x1b]0;x\x07"), file("-rf"), file("a b")]]),
    "the same name again and again": Attack(
        [[file("x"), folder("x"), symlink("x", str(VICTIM)), file("x/kept"), folder("x"), file("x")]]
    ),
    "folders in each other without end": Attack(
        [[folder("/".join(["d"] * 300))]], refused="more than 100 folders in each other"
    ),
    "a path beyond what paths can be": Attack([[file("/".join(["d" * 200] * 30))]], refused="failed|path of more than"),
    "a python that is a link to outside": Attack([[symlink("usr/bin/python3", f"{UP}{VICTIM}/kept")]]),
    "a python that is a very long link": Attack([[symlink("usr/bin/python3", "x" * 300)]]),
    "a python that lies about itself": Attack(
        [[file("bin/sh", Path("/bin/true").read_bytes()), file("usr/bin/python3", b"#!/bin/sh\n{}")]]
    ),
    "a user of the name and one of the number": Attack(
        [[file("etc/passwd", b"sandbox:x:0:0::/:/bin/sh\nother:x:1000:0::/:/bin/sh\n\xff\xfe")]]
    ),
    "a file larger than the disk, mostly hole": Attack(
        [[file("a", _HOLE, pax=_SPARSE)]],
        refused="no space left on device",
    ),
    "more files than the disk has room for": Attack(
        [[file(f"f{number}", b"") for number in range(SMALL_BYTES // 16_384 + 100)]],
        refused="unpacking the image failed|more than",
    ),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings with little disk for making templates, and what unpacks images."""
    settings = Settings(data=own_data(tmp_path_factory.mktemp("import") / "data"), template_max_bytes=SMALL_BYTES)
    asyncio.run(image_tools.ensure(settings, Silent()))
    return settings


@pytest.fixture
def victim() -> Iterator[Path]:
    """VICTIM, which is as it was in the end."""
    VICTIM.mkdir()
    (VICTIM / "kept").write_bytes(MARK)
    before = VICTIM.stat().st_mtime_ns
    yield VICTIM
    content = {path.name: (path.read_bytes(), path.stat().st_nlink) for path in VICTIM.iterdir()}
    after = VICTIM.stat().st_mtime_ns
    shutil.rmtree(VICTIM)
    assert content == {"kept": (MARK, 1)}
    assert after == before


@pytest.fixture(scope="module")
def tools_stay(small: Settings) -> Iterator[None]:
    """The root with skopeo and umoci is as it was after all attacks."""

    def look() -> dict[str, tuple[int, int]]:
        root = asyncio.run(image_tools.ensure(small, Silent()))
        return {str(path): (path.lstat().st_ino, path.lstat().st_ctime_ns) for path in root.rglob("*")}

    before = look()
    yield
    assert look() == before


@pytest.mark.usefixtures("tools_stay", "victim")
@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_an_image_cannot(attack: Attack, small: Settings, tmp_path: Path) -> None:
    layers = [images.layer(entries) for entries in attack.layers]
    layout = images.write_layout(tmp_path / "layout", layers)
    if attack.refused is None:
        require_harmless(import_image(layout, small))
        assert [template.name for template in catalog.list_templates(small) if template.is_current] == ["imported"]
    else:
        with pytest.raises(TemplateError, match=attack.refused) as refusal:
            import_image(layout, small)
        assert all(line.isprintable() for line in refusal.value.message.splitlines())
    assert left_unfinished(small) == []


def test_a_bomb_of_compressed_zeros_fills_only_its_own_disk(small: Settings, tmp_path: Path) -> None:
    bomb = images.layer([file("zeros", bytes(400 * MIB))])
    layout = images.write_layout(tmp_path / "layout", [bomb], compress=True)
    assert sum(path.stat().st_size for path in layout.rglob("*")) < 4 * MIB
    with pytest.raises(TemplateError, match="no space left on device"):
        import_image(layout, small)
    assert left_unfinished(small) == []


def test_a_bomb_around_an_archive_fills_only_its_own_disk(small: Settings, tmp_path: Path) -> None:
    image = tmp_path / "image.tar.gz"
    image.write_bytes(gzip.compress(bytes(400 * MIB), 1))
    with pytest.raises(TemplateError, match="No space left on device"):
        import_image(image, small)
    assert left_unfinished(small) == []


@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_what_is_not_what_its_digest_says_is_refused(small: Settings, tmp_path: Path, which: str) -> None:
    layout = images.write_layout(tmp_path / "layout", [images.layer([file("a")])])
    manifest = images.manifest_of(layout)
    index = json.loads((layout / "index.json").read_bytes())
    digests = {
        "layer": manifest["layers"][0]["digest"],
        "config": manifest["config"]["digest"],
        "manifest": index["manifests"][0]["digest"],
    }
    blob = images.blob_file(layout, digests[which])
    # Still of the right form, and as long as it says.
    changed = {"layer": (b"foreign", b"forged!"), "config": (b'"linux"', b'"linuz"'), "manifest": (b'": 2', b'" :2')}
    content = blob.read_bytes()
    blob.write_bytes(content.replace(*changed[which]))
    assert blob.read_bytes() != content
    with pytest.raises(TemplateError, match=r"[Dd]igest"):
        import_image(layout, small)


def test_a_layout_with_a_link_in_it_is_refused(small: Settings, tmp_path: Path, victim: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", [images.layer([file("a")])])
    (layout / "blobs/sha256" / ("0" * 64)).symlink_to(victim / "kept")
    with pytest.raises(TemplateError, match="neither a file nor a folder"):
        import_image(layout, small)


def test_a_layout_whose_digest_is_a_path_is_refused(small: Settings, tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", [images.layer([file("a")])])
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"][0]["digest"] = f"sha256:{UP}etc/passwd"
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(TemplateError, match="is no sha256 digest"):
        import_image(layout, small)


@pytest.mark.parametrize(
    "content",
    [b"", b"no archive", gzip.compress(b"no archive"), bytes(10_240)],
    ids=["nothing", "a text", "a compressed text", "zeros"],
)
def test_what_is_no_image_is_refused(small: Settings, tmp_path: Path, content: bytes) -> None:
    image = tmp_path / "image.tar"
    image.write_bytes(content)
    with pytest.raises(TemplateError, match="image"):
        import_image(image, small)


def test_a_killed_import_leaves_nothing_mounted_and_nothing_half_made(small: Settings, tmp_path: Path) -> None:
    layout = images.write_layout(tmp_path / "layout", [images.layer([file("a")])])
    progress = _CancelAt("unpacking the image")

    async def run() -> None:
        progress.task = asyncio.current_task()
        await own.import_image(layout, "cancelled", None, small, progress)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert left_unfinished(small) == []
    assert [template.name for template in catalog.list_templates(small) if template.name == "cancelled"] == []
    assert str(small.data) not in Path("/proc/mounts").read_text()


class _CancelAt(Silent):
    """Progress that cancels the build when a phase begins."""

    def __init__(self, title: str) -> None:
        self.task: asyncio.Task[None] | None = None
        self._title = title

    def phase(self, title: str, total: int | None = None) -> None:
        """Cancel at the one."""
        del total
        if title == self._title and self.task is not None:
            self.task.cancel()
