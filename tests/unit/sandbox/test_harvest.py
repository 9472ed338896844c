"""What is taken over of a tree that others wrote, and what is shared with the root it was a copy of."""

import asyncio
import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import until, wait_until

from fumehood.sandbox.template.errors import TemplateError
from fumehood.sandbox.template.harvest import Bounds, Harvest, harvest, remember
from fumehood.settings import GIB, MIB

ROOMY = Bounds(GIB, 1000)


def take(tree: Path, target: Path, bounds: Bounds, **options: Any) -> Harvest:
    """Take a tree over."""
    return asyncio.run(harvest(tree, target, bounds, **options))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree to be taken over."""
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where it is taken over to."""
    return tmp_path / "target"


def test_files_folders_and_links_come_along_as_they_are(tree: Path, target: Path) -> None:
    (tree / "folder").mkdir(mode=0o750)
    (tree / "folder/file").write_bytes(b"content")
    (tree / "folder/file").chmod(0o640)
    os.chown(tree / "folder/file", 33, 44)
    os.utime(tree / "folder/file", ns=(5, 1_000_000_007))
    (tree / "link").symlink_to("/etc/shadow")
    found = take(tree, target, ROOMY)
    status = (target / "folder/file").stat()
    assert (target / "folder/file").read_bytes() == b"content"
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 33, 44)
    assert status.st_mtime_ns == 1_000_000_007
    assert stat.S_IMODE((target / "folder").stat().st_mode) == 0o750
    assert (target / "link").readlink() == Path("/etc/shadow")
    assert found == Harvest(size_bytes=7, entries=3)


def test_privileges_and_special_files_do_not(tree: Path, target: Path) -> None:
    for name, mode in (("su", 0o6755), ("plain", 0o644)):
        (tree / name).write_bytes(b"")
        (tree / name).chmod(mode)
    (tree / "shared").mkdir()
    (tree / "shared").chmod(0o3777)
    os.setxattr(tree / "plain", "user.x", b"y")
    os.mkfifo(tree / "pipe")
    os.mknod(tree / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))
    found = take(tree, target, ROOMY)
    assert sorted(path.name for path in target.iterdir()) == ["plain", "shared", "su"]
    assert stat.S_IMODE((target / "su").stat().st_mode) == 0o755
    assert stat.S_IMODE((target / "shared").stat().st_mode) == 0o1777
    assert os.listxattr(target / "plain") == []
    assert (found.special_files_dropped, found.set_id_bits_dropped) == (3, 2)


def test_holes_stay_holes(tree: Path, target: Path) -> None:
    with (tree / "sparse").open("wb") as file:
        file.truncate(512 * MIB)
        file.seek(300 * MIB)
        file.write(b"x")
    take(tree, target, ROOMY)
    status = (target / "sparse").stat()
    assert (status.st_size, status.st_blocks * 512 < MIB) == (512 * MIB, True)
    assert subprocess.run(["cmp", tree / "sparse", target / "sparse"], check=False).returncode == 0


def test_names_of_one_file_stay_names_of_one_file(tree: Path, target: Path) -> None:
    (tree / "a").mkdir()
    (tree / "a/one").write_bytes(b"content")
    (tree / "two").hardlink_to(tree / "a/one")
    take(tree, target, ROOMY)
    assert (target / "two").samefile(target / "a/one")
    assert not (target / "two").samefile(tree / "two")


def test_names_that_are_not_text_come_along(tree: Path, target: Path) -> None:
    name = os.fsdecode(b"\xff\xfe \n\x1b")
    (tree / name).write_bytes(b"content")
    take(tree, target, ROOMY)
    assert [path.name for path in target.iterdir()] == [name]


def test_what_is_left_out_is_left_out_at_the_top_only(tree: Path, target: Path) -> None:
    for name in ("proc", "kept/proc"):
        (tree / name).mkdir(parents=True)
    take(tree, target, ROOMY, left_out=frozenset({"proc"}))
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == ["kept", "kept/proc"]


@pytest.mark.parametrize(
    ("bounds", "says"),
    [(Bounds(99, 1000), "more than 99 bytes"), (Bounds(GIB, 2), "more than 2 entries")],
)
def test_a_tree_beyond_its_bounds_is_refused(tree: Path, target: Path, bounds: Bounds, says: str) -> None:
    for name in ("a", "b", "c"):
        (tree / name).write_bytes(bytes(50))
    with pytest.raises(TemplateError, match=says):
        take(tree, target, bounds)


def test_a_hole_beyond_the_bounds_is_refused(tree: Path, target: Path) -> None:
    with (tree / "a\x1b[2J").open("wb") as file:
        file.truncate(2 * GIB)
    with pytest.raises(TemplateError, match=r"^a\\x1b\[2J: a file of 2147483648 bytes, holes included$"):
        take(tree, target, ROOMY)


def test_a_tree_that_is_a_link_is_refused(tmp_path: Path, tree: Path, target: Path) -> None:
    (tree / "secret").write_bytes(b"content")
    link = tmp_path / "link"
    link.symlink_to(tree)
    with pytest.raises(TemplateError, match="its root is no folder"):
        take(link, target, ROOMY)


def test_a_tree_that_spans_file_systems_is_refused(tree: Path, target: Path) -> None:
    (tree / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", tree / "mounted"], check=True)
    try:
        with pytest.raises(TemplateError, match="mounted: on another file system"):
            take(tree, target, ROOMY)
    finally:
        subprocess.run(["umount", tree / "mounted"], check=True)


def test_a_cancelled_harvest_has_stopped_writing(tree: Path, target: Path) -> None:
    for number in range(10_000):
        (tree / f"{number}").write_bytes(b"content")

    async def cancel() -> None:
        work = asyncio.ensure_future(harvest(tree, target, Bounds(GIB, 20_000)))
        await until(target.exists, "the harvest to begin")
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(cancel())
    count = len([*target.iterdir()])
    shutil.rmtree(target)
    assert count < 10_000


def copied(tmp_path: Path) -> tuple[Path, Path]:
    """A root, and a copy of it."""
    root, tree = tmp_path / "root", tmp_path / "tree"
    for folder in ("one", "two", "one/deep", "two/deep"):
        (root / folder).mkdir(parents=True)
    for name in ("same", "changed", "one/file", "two/file", "one/deep/file", "two/deep/file", "mode", "gone"):
        # Of one size and of one time: only the kernel's own record tells them apart.
        (root / name).write_bytes(name.encode().ljust(20))
        os.utime(root / name, (1, 1))
    subprocess.run(["cp", "--archive", root, tree], check=True)
    # What is written in the clock's tick in which the copy ended counts as changed.
    last = max(path.lstat().st_ctime_ns for path in tree.rglob("*"))

    def tick_is_over() -> bool:
        (tmp_path / "now").touch()
        return (tmp_path / "now").stat().st_ctime_ns > last

    wait_until(tick_is_over, "the clock's next tick")
    return root, tree


def test_files_that_did_not_change_are_the_parent_s_own(tmp_path: Path, target: Path) -> None:
    root, tree = copied(tmp_path)
    parent = asyncio.run(remember(tree, root))
    (tree / "changed").write_bytes(b"other".ljust(20))
    os.utime(tree / "changed", (1, 1))
    (tree / "mode").chmod(0o600)
    (tree / "gone").unlink()
    (tree / "new").write_bytes(b"new")
    found = take(tree, target, ROOMY, parent=parent)
    assert (target / "same").samefile(root / "same")
    assert (target / "one/deep/file").samefile(root / "one/deep/file")
    assert (target / "changed").read_bytes() == b"other".ljust(20)
    assert stat.S_IMODE((target / "mode").stat().st_mode) == 0o600
    assert not (target / "gone").exists()
    assert found.shared_with_parent == 5
    # The parent is as it was.
    assert (root / "changed").read_bytes() == b"changed".ljust(20)
    assert stat.S_IMODE((root / "mode").stat().st_mode) == 0o644


def test_folders_that_change_places_take_their_files_along(tmp_path: Path, target: Path) -> None:
    root, tree = copied(tmp_path)
    parent = asyncio.run(remember(tree, root))
    (tree / "one/deep").rename(tree / "aside")
    (tree / "two/deep").rename(tree / "one/deep")
    (tree / "aside").rename(tree / "two/deep")
    take(tree, target, ROOMY, parent=parent)
    assert (target / "one/deep/file").read_bytes() == b"two/deep/file".ljust(20)
    assert (target / "two/deep/file").read_bytes() == b"one/deep/file".ljust(20)
    assert (target / "one/file").samefile(root / "one/file")
