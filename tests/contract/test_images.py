"""A sandbox that is checkpointed, stored, ended and woken from its image is as it was: everyday things, by content."""

import hashlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fumehood.sandbox.contract import EndReason, GuestRequest, Sandbox
from fumehood.sandbox.images.manifest import About, ImageRefusedError, StoredImage
from fumehood.sandbox.images.needs import needs_of
from fumehood.sandbox.images.store import ImageStore
from fumehood.settings import GIB, MIB
from tests.contract.conftest import CALL_SECONDS, OUTPUT_BYTES, PYTHON, Machine, run, sh

_ACCOUNT = "111111111111"
_LIFE_SECONDS = 3600.0
_WARM_SECONDS = 120.0


@dataclass
class Sleeper:
    """One session's sandbox, awake or asleep."""

    machine: Machine
    store: ImageStore
    warm: Path
    sandbox: Sandbox
    image: StoredImage | None = None

    async def sleep(self) -> StoredImage:
        """Store its checkpoint, verified, and end it."""
        raw = self.machine.data / f"raw-{self.sandbox.spec.sandbox_id}"
        # The agent's deadline would fire on waking: its clock runs on in the image.
        await self.sandbox.call(GuestRequest("deadline", {"seconds": None}), CALL_SECONDS, 0)
        await self.sandbox.checkpoint(raw)
        about = About(_ACCOUNT, "session", needs_of(self.sandbox.spec, self.sandbox.isolation))
        self.image = await self.store.store(raw, self.warm, about, _LIFE_SECONDS)
        await self.store.verify(self.image.image_id)
        await self.sandbox.stop(EndReason.STOPPED)
        return self.image

    async def wake(self) -> Sandbox:
        """Restore it into a new sandbox."""
        assert self.image is not None
        spec = self.machine.spec()
        needs = needs_of(spec, self.sandbox.isolation)
        async with self.store.materialised(self.image.image_id, _ACCOUNT, needs) as folder:
            self.sandbox = await self.machine.engine.restore(spec, folder)
        await self.store.delete(self.image.image_id)
        return self.sandbox

    async def over(self) -> Sandbox:
        """Sleep and wake."""
        await self.sleep()
        return await self.wake()


@pytest.fixture
async def sleeper(machine: Machine) -> AsyncGenerator[Sleeper]:
    """A sandbox restored from a warm checkpoint of its own template, as a session's is."""
    store = ImageStore(machine.data / "images", machine.data / "images.key", 4 * GIB)
    warm = machine.data / "warm"
    first = await machine.engine.start_for_checkpoint(machine.spec())
    try:
        request = GuestRequest("warm", {"runtime": "python", "timeout_seconds": _WARM_SECONDS})
        await first.call(request, _WARM_SECONDS + 10, 0)
        await first.checkpoint(warm)
    finally:
        await first.stop(EndReason.STOPPED)
    made = Sleeper(machine, store, warm, await machine.engine.restore(machine.spec(), warm))
    try:
        yield made
    finally:
        await made.sandbox.stop(EndReason.STOPPED)


async def test_variables_files_and_background_processes_are_as_they_were(sleeper: Sleeper) -> None:
    await run(sleeper.sandbox, "import pandas as pd; frame = pd.DataFrame({'a': range(1000)}); x = 41")
    await sh(sleeper.sandbox, "mkdir -p deep/er && echo kept > deep/er/file.txt && ln -s deep/er/file.txt link")
    before = await sh(sleeper.sandbox, "(while sleep 0.05; do date +%s%N > beat; done) >/dev/null 2>&1 & echo $!")
    image = await sleeper.sleep()
    assert image.size_bytes <= 15 * MIB, f"{image.size_bytes} bytes for a session with a few variables"
    sandbox = await sleeper.wake()
    assert await run(sandbox, "x += 1; print(x, frame.a.sum(), pd.__name__)") == "42 499500 pandas\n"
    assert await sh(sandbox, "cat link; find deep -type f") == "kept\ndeep/er/file.txt\n"
    beats = f'kill -0 {before.strip()} && old=$(cat beat); until [ "$(cat beat)" != "$old" ]; do sleep 0.05; done'
    assert await sh(sandbox, f"{beats}; echo beating") == "beating\n"


async def test_memory_is_what_it_was_over_ten_rounds(sleeper: Sleeper) -> None:
    await run(
        sleeper.sandbox,
        "import hashlib, numpy\n"
        "array = numpy.random.default_rng(4).integers(0, 2**63, 4_000_000)\n"
        "array[1_000_000:2_000_000] = 0\n"
        "open('/dev/shm/kept', 'wb').write(array.tobytes()[:16_000_000])\n"
        "def digests():\n"
        "    file = hashlib.sha256(open('/dev/shm/kept', 'rb').read()).hexdigest()\n"
        "    return hashlib.sha256(array.tobytes()).hexdigest(), file\n"
        "first = digests(); rounds = 0\n",
    )
    for round_number in range(1, 11):
        sandbox = await sleeper.over()
        said = await run(sandbox, "rounds += 1; assert digests() == first, digests(); print(rounds)")
        assert said == f"{round_number}\n"


_EVERYDAY = {
    "a deleted file still open": (
        "import os\nfile = open('gone', 'w+b'); file.write(b'a' * 100_000 + b'end'); file.flush(); os.unlink('gone')",
        "file.seek(100_000); print(file.read(), os.path.exists('gone'))",
        "b'end' False\n",
    ),
    "a temporary file": (
        "import tempfile\nfile = tempfile.TemporaryFile(); file.write(b'temporary'); file.flush()",
        "file.seek(0); print(file.read())",
        "b'temporary'\n",
    ),
    "a file open at a place": (
        "open('lines', 'w').write('one\\ntwo\\nthree\\n'); file = open('lines'); file.readline()",
        "print(file.readline(), end='')",
        "two\n",
    ),
    "a shared mapping of a file": (
        "import mmap\nopen('mapped', 'wb').write(bytes(65536))\nfile = open('mapped', 'r+b')\n"
        "area = mmap.mmap(file.fileno(), 0); area[40_000:40_003] = b'map'",
        "area[0:3] = b'new'; area.flush(); data = open('mapped', 'rb').read(); print(data[40_000:40_003], data[:3])",
        "b'map' b'new'\n",
    ),
    "an anonymous mapping": (
        "import mmap\narea = mmap.mmap(-1, 1 << 20); area[500_000:500_004] = b'anon'",
        "print(area[500_000:500_004])",
        "b'anon'\n",
    ),
    "a mapping of the template's file": (
        "import mmap, hashlib, sys\nfile = open(sys.executable, 'rb')\n"
        "area = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ); digest = hashlib.sha256(area).hexdigest()",
        "print(hashlib.sha256(area).hexdigest() == digest)",
        "True\n",
    ),
    "a program that was written here, running": (
        "import shutil, subprocess\nshutil.copy('/bin/cat', 'mine')\n"
        "child = subprocess.Popen(['./mine'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)",
        "print(child.communicate(b'through it'), subprocess.run(['./mine', '--version'], stdout=-3).returncode)",
        "(b'through it', None) 0\n",
    ),
    "a library that was written here, loaded": (
        "import ctypes, shutil, _ctypes\nshutil.copy(_ctypes.__file__, 'library.so')\n"
        "library = ctypes.PyDLL('./library.so')",
        "print(library.PyInit__ctypes is not None)",
        "True\n",
    ),
    "a memfd": (
        "import os\nmemory = os.memfd_create('m'); os.write(memory, b'in memory')",
        "print(os.pread(memory, 100, 0))",
        "b'in memory'\n",
    ),
    "a pseudoterminal": (
        "import os, subprocess, tty\nmaster, slave = os.openpty(); tty.setraw(master)\n"
        "child = subprocess.Popen(['cat'], stdin=slave, stdout=slave)",
        "os.write(master, b'typed'); print(os.read(master, 100)); child.kill(); child.wait()",
        "b'typed'\n-9\n",
    ),
    "inotify": (
        "import ctypes, os, struct\nlibc = ctypes.CDLL(None)\nos.makedirs('watched', exist_ok=True)\n"
        "watch = libc.inotify_init1(0); libc.inotify_add_watch(watch, b'watched', 0x100)\n"
        "open('watched/before', 'w').close()",
        "open('watched/after', 'w').close(); names = b''\n"
        "while b'after' not in names: names += os.read(watch, 4096)\n"
        "print(b'before' in names)",
        "True\n",
    ),
    "a pair of Unix sockets": (
        "import socket\none, other = socket.socketpair(); one.sendall(b'waiting')",
        "print(other.recv(100)); other.sendall(b'back'); print(one.recv(100))",
        "b'waiting'\nb'back'\n",
    ),
    "a Unix socket that listens": (
        "import socket\nserver = socket.socket(socket.AF_UNIX); server.bind('/tmp/s'); server.listen()\n"
        "client = socket.socket(socket.AF_UNIX); client.connect('/tmp/s'); client.sendall(b'one')",
        "end, _ = server.accept(); print(end.recv(9)); late = socket.socket(socket.AF_UNIX); late.connect('/tmp/s')\n"
        "late.sendall(b'two'); print(server.accept()[0].recv(9))",
        "b'one'\nb'two'\n",
    ),
    "a TCP connection on loopback": (
        "import socket\nserver = socket.create_server(('127.0.0.1', 0)); address = server.getsockname()\n"
        "client = socket.create_connection(address); end, _ = server.accept(); client.sendall(b'waiting')",
        "print(end.recv(100)); end.sendall(b'back'); print(client.recv(100))\n"
        "late = socket.create_connection(address); late.sendall(b'late'); print(server.accept()[0].recv(100))",
        "b'waiting'\nb'back'\nb'late'\n",
    ),
    "a UDP socket on loopback": (
        "import socket\nserver = socket.socket(type=socket.SOCK_DGRAM); server.bind(('127.0.0.1', 0))\n"
        "client = socket.socket(type=socket.SOCK_DGRAM); client.sendto(b'one', server.getsockname())",
        "print(server.recv(9)); client.sendto(b'two', server.getsockname()); print(server.recv(9))",
        "b'one'\nb'two'\n",
    ),
    "an event loop with a pipe": (
        "import os, selectors\nreader, writer = os.pipe(); selector = selectors.EpollSelector()\n"
        "_ = selector.register(reader, 1); os.write(writer, b'piped')",
        "print(len(selector.select(5)), os.read(reader, 9))",
        "1 b'piped'\n",
    ),
    "a subprocess with pipes": (
        "import subprocess\nchild = subprocess.Popen(['cat'], stdin=-1, stdout=-1)\n"
        "child.stdin.write(b'before '); child.stdin.flush()",
        "print(child.communicate(b'after')[0], child.returncode)",
        "b'before after' 0\n",
    ),
    "a sleep that spans it": (
        "import threading, time\nwoken = threading.Event()\n"
        "threading.Thread(target=lambda: (time.sleep(2), woken.set()), daemon=True).start()",
        "print(woken.wait(30))",
        "True\n",
    ),
    "a timer and a timerfd": (
        "import ctypes, os, signal, struct\nlibc = ctypes.CDLL(None); timer = libc.timerfd_create(1, 0)\n"
        "libc.timerfd_settime(timer, 0, struct.pack('4q', 0, 0, 2, 0), None)\nrung = []\n"
        "_ = signal.signal(signal.SIGALRM, lambda *_: rung.append(1)); signal.alarm(2)",
        "print(struct.unpack('q', os.read(timer, 8))[0])\nimport time\n"
        "until = time.monotonic() + 30\nwhile not rung and time.monotonic() < until: time.sleep(0.01)\nprint(rung)",
        "1\n[1]\n",
    ),
    "threads and locks": (
        "import threading, queue\nasked, answered = queue.Queue(), queue.Queue()\n"
        "def work():\n    while True: answered.put(asked.get() * 2)\n"
        "threading.Thread(target=work, daemon=True).start()",
        "asked.put(21); print(answered.get(timeout=30))",
        "42\n",
    ),
    "a pool of processes": (
        "import multiprocessing\npool = multiprocessing.get_context('fork').Pool(2); _ = pool.map(abs, [1])",
        "print(pool.map(abs, [-1, -2, -3])); pool.terminate()",
        "[1, 2, 3]\n",
    ),
    "shared memory": (
        "from multiprocessing import shared_memory\nshared = shared_memory.SharedMemory(create=True, size=1 << 20)\n"
        "shared.buf[1000:1006] = b'shared'",
        "again = shared_memory.SharedMemory(shared.name); print(bytes(again.buf[1000:1006])); shared.unlink()",
        "b'shared'\n",
    ),
    "a database": (
        "import sqlite3\ndatabase = sqlite3.connect('data.sqlite', check_same_thread=False)\n"
        "_ = database.execute('create table t (x)'); _ = database.execute('insert into t values (7)')",
        "database.commit(); print(sqlite3.connect('data.sqlite').execute('select x from t').fetchall())",
        "[(7,)]\n",
    ),
    "a lock on a file": (
        "import fcntl, subprocess\nfile = open('locked', 'w'); fcntl.flock(file, fcntl.LOCK_EX)",
        "print(subprocess.run(['flock', '-n', 'locked', 'true']).returncode)",
        "1\n",
    ),
    "a named pipe": (
        "import os\nos.mkfifo('fifo'); pipe = os.open('fifo', os.O_RDWR); os.write(pipe, b'in it')",
        "print(os.read(pipe, 100))",
        "b'in it'\n",
    ),
    "settings of the process": (
        "import os, resource\nos.chdir('/tmp'); os.environ['KEPT'] = 'yes'; os.umask(0o27)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (500, 600))",
        "print(os.getcwd(), os.environ['KEPT'], oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_NOFILE))",
        "/tmp yes 0o27 (500, 600)\n",
    ),
}


@pytest.mark.parametrize("name", _EVERYDAY)
async def test_it_is_as_it_was(sleeper: Sleeper, name: str) -> None:
    before, after, said = _EVERYDAY[name]
    await run(sleeper.sandbox, before)
    assert await run(await sleeper.over(), after) == said


async def test_what_is_written_in_one_waking_after_another_arrives_whole(sleeper: Sleeper) -> None:
    crash = GuestRequest("execute", PYTHON, (b"import os; os.kill(os.getpid(), 9)",))
    # It is silent and stays: the two of its pipes are what all that comes and goes lies beside.
    lasting = GuestRequest("task.start", {"timeout_seconds": 3600.0}, (b"sleep 3600",))
    await sleeper.sandbox.call(lasting, CALL_SECONDS, OUTPUT_BYTES)
    for waking in range(6):
        if waking == 3:
            assert (await sleeper.sandbox.call(crash, CALL_SECONDS, OUTPUT_BYTES)).head["outcome"] == "died"
        sandbox = await sleeper.over()
        for size in (100, 200_000, 5_000):
            body = bytes([waking]) * size
            files = {"files": [{"path": "written", "size": size}]}
            written = await sandbox.call(GuestRequest("files.write", files, (body,)), CALL_SECONDS, OUTPUT_BYTES)
            assert written.head == {"written": 1}
            assert await sh(sandbox, "sha256sum < written") == f"{hashlib.sha256(body).hexdigest()}  -\n"
        await run(sandbox, "x = 1")


async def test_an_image_for_other_sizes_is_refused(sleeper: Sleeper) -> None:
    image = await sleeper.sleep()
    needs = needs_of(sleeper.machine.spec(memory_bytes=GIB), sleeper.sandbox.isolation)
    with pytest.raises(ImageRefusedError, match="memory_bytes"):
        async with sleeper.store.materialised(image.image_id, _ACCOUNT, needs):
            pytest.fail("it was used")
