"""Stored images read back bit for bit or are refused, whatever was done to them, and what is half-made never counts."""

import asyncio
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from tests.waiting import until

from fumehood.sandbox.images.manifest import MANIFEST, About, ImageRefusedError
from fumehood.sandbox.images.pages import PAGE, read_digest, rebuild, write_difference
from fumehood.sandbox.images.store import ImagesFullError, ImageStore
from fumehood.settings import GIB, MIB

_NEEDS = {"engine": "gVisor 20240729", "template": "base-1"}
_ABOUT = About("111111111111", "01SESSION", _NEEDS)
_LIFE_SECONDS = 3600.0
_random = random.Random(4)


def _pages(count: int) -> list[bytes]:
    return [_random.randbytes(PAGE) for _ in range(count)]


@dataclass
class Place:
    """A store, a warm checkpoint, and a checkpoint of a session that started from it."""

    folder: Path
    warm: Path
    raw: Path

    def store(self, key: str = "images.key", bytes_max: int = GIB) -> ImageStore:
        """As a server's start would make it."""
        return ImageStore(self.folder / "images", self.folder / key, bytes_max)

    def leftovers(self) -> list[str]:
        """What does not count."""
        return [path.name for path in (self.folder / "images").glob(".*")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path, tmp_path / "warm", tmp_path / "raw")
    made.warm.mkdir()
    made.raw.mkdir()
    base = _pages(600)
    (made.warm / "pages.img").write_bytes(b"".join(base))
    session = [*_pages(3), *base[:200], bytes(PAGE), *_pages(2), *base[150:]]
    (made.raw / "pages.img").write_bytes(b"".join(session))
    (made.raw / "pages_meta.img").write_bytes(b"meta")
    (made.raw / "checkpoint.img").write_bytes(b"state" * 1000)
    return made


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


_BASE_PAGES = _pages(8)
_A_FILE = st.lists(
    st.one_of(
        st.sampled_from(_BASE_PAGES),
        st.just(bytes(PAGE)),
        st.binary(min_size=PAGE, max_size=PAGE),
        st.sampled_from(_BASE_PAGES).map(lambda page: page[:-1] + b"!"),
    ),
    max_size=24,
)


@settings(max_examples=60, deadline=None)
@given(raw=_A_FILE, base=st.one_of(st.none(), _A_FILE), tail=st.binary(max_size=100))
def test_a_file_reads_back_bit_for_bit_whatever_it_shares_with_its_base(
    tmp_path_factory: pytest.TempPathFactory, raw: list[bytes], base: list[bytes] | None, tail: bytes
) -> None:
    folder = tmp_path_factory.mktemp("files")
    content = b"".join(raw) + tail
    (folder / "raw").write_bytes(content)
    against = None
    if base is not None:
        against = folder / "against"
        against.write_bytes(b"".join(base))
    digest = write_difference(folder / "raw", against, folder / "index", folder / "kept")
    rebuild(folder / "kept", against, len(content), folder / "again")
    assert (folder / "again").read_bytes() == content
    assert read_digest(folder / "kept", against, len(content)) == digest


@pytest.mark.parametrize(
    ("content", "kept_at_most"),
    [
        (b"", 0),
        (bytes(5000 * PAGE), 200),
        (b"".join(_BASE_PAGES * 700), 200 * 1024),
        (b"".join([b"x" * PAGE, *_BASE_PAGES]), 1024),
        (_random.randbytes(3000 * PAGE + 17), 3001 * PAGE),
    ],
    ids=["empty", "zero", "equal", "shifted", "random"],
)
def test_what_is_kept_is_no_larger_than_what_is_new(tmp_path: Path, content: bytes, kept_at_most: int) -> None:
    (tmp_path / "base").write_bytes(b"".join(_BASE_PAGES))
    (tmp_path / "raw").write_bytes(content)
    write_difference(tmp_path / "raw", tmp_path / "base", tmp_path / "index", tmp_path / "kept")
    assert (tmp_path / "kept").stat().st_size <= kept_at_most
    rebuild(tmp_path / "kept", tmp_path / "base", len(content), tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == content


def test_an_index_that_is_wrong_costs_space_and_nothing_else(place: Place) -> None:
    base, raw = place.warm / "pages.img", place.raw / "pages.img"
    index = place.folder / "index"
    write_difference(raw, base, index, place.folder / "good")
    keys = index.read_bytes()
    index.write_bytes(keys[80:] + keys[:80])
    write_difference(raw, base, index, place.folder / "kept")
    rebuild(place.folder / "kept", base, raw.stat().st_size, place.folder / "again")
    assert (place.folder / "again").read_bytes() == raw.read_bytes()


async def test_an_image_is_small_private_and_given_back_as_it_was(place: Place) -> None:
    store = place.store()
    image = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    await store.verify(image.image_id)
    assert (image.about, image.raw_bytes) == (_ABOUT, sum(len(each) for each in _contents(place.raw).values()))
    assert image.size_bytes <= 15 * PAGE
    async with store.materialised(image.image_id, _ABOUT.account, _NEEDS) as folder:
        assert _contents(folder) == _contents(place.raw)
        seen = [folder, *folder.iterdir()]
        image_folder = place.folder / "images" / image.image_id
        seen += [image_folder, *image_folder.iterdir(), place.folder / "images.key"]
        for path in seen:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    await until(lambda: not folder.exists(), "it to be removed")
    assert place.leftovers() == []


async def test_an_image_outlives_the_checkpoint_that_it_was_made_against(place: Place) -> None:
    image = await place.store().store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    shutil.rmtree(place.warm)
    async with place.store().materialised(image.image_id, _ABOUT.account, _NEEDS) as folder:
        assert _contents(folder) == _contents(place.raw)


async def test_an_image_without_a_base_is_kept_whole(place: Place) -> None:
    store = place.store()
    image = await store.store(place.raw, None, _ABOUT, _LIFE_SECONDS)
    await store.verify(image.image_id)
    async with store.materialised(image.image_id, _ABOUT.account, _NEEDS) as folder:
        assert _contents(folder) == _contents(place.raw)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


_DAMAGED = ["pages.img", "pages_meta.img", "checkpoint.img", "base/pages.img"]


@pytest.mark.parametrize("name", _DAMAGED)
@pytest.mark.parametrize("damage", [_flip, _truncate, Path.unlink])
async def test_an_image_with_any_part_damaged_is_refused(
    place: Place, name: str, damage: Callable[[Path], None]
) -> None:
    image = await place.store().store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    damage(place.folder / "images" / image.image_id / name)
    store = place.store()
    with pytest.raises(ImageRefusedError, match="damaged"):
        await store.verify(image.image_id)
    with pytest.raises(ImageRefusedError, match="damaged"):
        async with store.materialised(image.image_id, _ABOUT.account, _NEEDS):
            pytest.fail("it was used")
    await until(lambda: not place.leftovers(), "the copy to be removed")


@pytest.mark.parametrize("damage", [_flip, _truncate, Path.unlink])
async def test_an_image_whose_manifest_is_damaged_is_refused_left_out_of_lists_and_can_be_deleted(
    place: Place, damage: Callable[[Path], None]
) -> None:
    store = place.store()
    image = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    damage(place.folder / "images" / image.image_id / MANIFEST)
    with pytest.raises(ImageRefusedError):
        await store.find(image.image_id)
    with capture_logs() as logs:
        assert await store.list_images() == []
    assert [entry["image_id"] for entry in logs] == [image.image_id]
    assert (await store.sizes()).images_bytes > 0
    await store.delete(image.image_id)
    assert (await store.sizes()).images_bytes == 0


async def test_a_manifest_that_says_something_else_is_refused(place: Place) -> None:
    store = place.store()
    image = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    path = place.folder / "images" / image.image_id / MANIFEST
    signed = json.loads(path.read_text())
    signed["image"]["about"]["account"] = "222222222222"
    path.write_text(json.dumps(signed))
    with pytest.raises(ImageRefusedError, match="changed"):
        await store.verify(image.image_id)


async def test_an_image_of_another_installation_is_refused(place: Place) -> None:
    image = await place.store().store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    with pytest.raises(ImageRefusedError, match="another installation"):
        await place.store(key="other.key").find(image.image_id)


async def test_an_image_under_another_ones_id_is_refused(place: Place) -> None:
    store = place.store()
    mine = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    other = await store.store(place.raw, place.warm, About("222222222222", "s", _NEEDS), _LIFE_SECONDS)
    shutil.rmtree(place.folder / "images" / mine.image_id)
    (place.folder / "images" / other.image_id).rename(place.folder / "images" / mine.image_id)
    with pytest.raises(ImageRefusedError, match="another one's copy"):
        await store.find(mine.image_id)


@pytest.mark.parametrize(
    ("needs", "named"),
    [
        (_NEEDS | {"engine": "gVisor 20250101"}, "engine gVisor 20240729, and here it is gVisor 20250101"),
        ({"engine": "gVisor 20240729"}, "template base-1, and here it is None"),
        (_NEEDS | {"network": "none"}, "network None"),
    ],
)
async def test_an_image_that_does_not_fit_is_refused_by_name(place: Place, needs: dict[str, str], named: str) -> None:
    store = place.store()
    image = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    with pytest.raises(ImageRefusedError, match=named):
        async with store.materialised(image.image_id, _ABOUT.account, needs):
            pytest.fail("it was used")


async def test_for_another_account_there_is_no_image(place: Place) -> None:
    store = place.store()
    image = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    with pytest.raises(ImageRefusedError, match="there is no image"):
        async with store.materialised(image.image_id, "222222222222", _NEEDS):
            pytest.fail("it was used")


@pytest.mark.parametrize("image_id", ["../warm", ".", "", "01ARZ3NDEKTSV4RRFFQ69G5FA/", "01ARZ3NDEKTSV4RRFFQ69G5FAV\n"])
async def test_an_id_that_is_none_is_refused_and_deletes_nothing(place: Place, image_id: str) -> None:
    store = place.store()
    await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    with pytest.raises(ImageRefusedError):
        await store.find(image_id)
    with pytest.raises(ImageRefusedError):
        await store.delete(image_id)
    assert len(await store.list_images()) == 1
    assert place.warm.exists()


async def test_an_expired_image_is_refused_and_collected(place: Place) -> None:
    store = place.store()
    kept = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    expired = await store.store(place.raw, place.warm, _ABOUT, 0)
    with pytest.raises(ImageRefusedError, match="expired"):
        async with store.materialised(expired.image_id, _ABOUT.account, _NEEDS):
            pytest.fail("it was used")
    assert await store.collect_garbage() == [expired]
    assert await store.list_images() == [kept]


async def test_deleting_is_idempotent_and_leaves_other_images_whole(place: Place) -> None:
    store = place.store()
    gone = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    kept = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    for _ in range(2):
        await store.delete(gone.image_id)
    await store.verify(kept.image_id)
    assert [path.name for path in (place.folder / "images").iterdir()] == [kept.image_id]


async def test_bases_count_once_and_images_alone_for_themselves(place: Place) -> None:
    store = place.store()
    images = [await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS) for _ in range(2)]
    sizes = await store.sizes()
    assert sizes.images_bytes == sum(image.size_bytes for image in images)
    assert sizes.bases_bytes == 600 * PAGE


async def test_above_the_limit_an_image_is_refused_with_the_figures_and_nothing_of_it_is_left(place: Place) -> None:
    first = await place.store().store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    store = place.store(bytes_max=first.size_bytes + PAGE)
    with pytest.raises(ImagesFullError, match=f"{first.size_bytes} of {first.size_bytes + PAGE} bytes"):
        await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    assert await store.list_images() == [first]
    assert place.leftovers() == []


async def test_a_checkpoint_that_cannot_be_stored_leaves_nothing(place: Place) -> None:
    (place.raw / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        await place.store().store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    with pytest.raises(FileNotFoundError):
        await place.store().store(place.raw, place.folder / "gone", _ABOUT, _LIFE_SECONDS)
    assert [*(place.folder / "images").iterdir()] == []


async def test_storing_that_is_cancelled_leaves_nothing(place: Place) -> None:
    with (place.raw / "pages.img").open("ab") as file:
        file.truncate(512 * MIB)
    storing = asyncio.ensure_future(place.store().store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS))
    await until(lambda: place.leftovers(), "a folder")
    storing.cancel()
    await asyncio.wait([storing])
    assert storing.cancelled()
    assert place.leftovers() == []


_STORE = """
import asyncio, sys
from pathlib import Path
from fumehood.sandbox.images.manifest import About
from fumehood.sandbox.images.store import ImageStore
folder = Path(sys.argv[1])
about = About("111111111111", "s", {})
asyncio.run(ImageStore(folder / "images", folder / "images.key", 2**40).store(folder / "raw", None, about, 60))
"""


def _workers(raw: Path) -> list[str]:
    """The processes that write what is in there into an image."""
    told = subprocess.run(
        ["pgrep", "-a", "-f", f"fumehood.sandbox.images.worker keep {raw} "],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.splitlines()


async def test_what_a_killed_server_left_half_made_does_not_count_and_is_collected(place: Place) -> None:
    with (place.raw / "pages.img").open("ab") as file:
        # To read so much takes longer than anything here waits.
        file.truncate(8 * GIB)
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", _STORE, str(place.folder))
    await until(lambda: place.leftovers(), "a folder")
    store = place.store()
    await store.collect_garbage()
    assert place.leftovers(), "what another server is making was removed"
    await until(lambda: _workers(place.raw), "the process that writes it")
    server.kill()
    await server.wait()
    # One that went on would write into what is removed.
    await until(lambda: not _workers(place.raw), "its end")
    assert await store.list_images() == []
    await store.collect_garbage()
    assert place.leftovers() == []


async def test_what_is_being_woken_is_not_collected(place: Place) -> None:
    store = place.store()
    image = await store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    async with store.materialised(image.image_id, _ABOUT.account, _NEEDS) as folder:
        await place.store().collect_garbage()
        assert _contents(folder) == _contents(place.raw)


async def test_servers_that_start_together_make_one_key(place: Place) -> None:
    stores = [place.store() for _ in range(8)]
    images = await asyncio.gather(*(store.store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS) for store in stores))
    assert {image.image_id for image in images} == {image.image_id for image in await place.store().list_images()}


async def test_a_key_that_is_none_is_refused(place: Place) -> None:
    (place.folder / "images.key").write_bytes(b"")
    with pytest.raises(ImageRefusedError, match=r"images\.key is not a key"):
        await place.store().store(place.raw, place.warm, _ABOUT, _LIFE_SECONDS)
    assert place.leftovers() == []
