"""Sessions that start from the pool are clones of one checkpoint, and share nothing that ought to be their own."""

import concurrent.futures
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service import Service, Session, service
from tests.signing import Caller
from tests.waiting import wait_until

CLONES = 4
_READY_SECONDS = 120.0
_CLOCK_SECONDS = 30.0
"""How far a clock may be off: far more than a busy machine needs between two looks."""

_PYTHON = """
import json, os, random, secrets, ssl, tempfile, uuid
import numpy
print(json.dumps({
    "random": random.random(),
    "random.Random": random.Random().random(),
    "random.SystemRandom": random.SystemRandom().random(),
    "numpy.random": numpy.random.random(),
    "numpy.random.default_rng": numpy.random.default_rng().random(),
    "numpy.random.RandomState": numpy.random.RandomState().random(),
    "os.urandom": os.urandom(16).hex(),
    "os.getrandom": os.getrandom(16).hex(),
    "uuid.uuid4": str(uuid.uuid4()),
    "uuid.uuid1": str(uuid.uuid1()),
    "secrets": secrets.token_hex(16),
    "ssl.RAND_bytes": ssl.RAND_bytes(16).hex(),
    "tempfile.mktemp": tempfile.mktemp(),
    "tempfile.mkdtemp": tempfile.mkdtemp(),
}))
"""
_SHELL = """
echo "bash RANDOM=$RANDOM.$RANDOM.$RANDOM"
echo "bash SRANDOM=$SRANDOM"
echo "mktemp=$(mktemp -u)"
echo "/dev/urandom=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' ')"
echo "/dev/random=$(head -c 16 /dev/random | od -An -tx1 | tr -d ' ')"
echo "python of a command=$(python3 -c 'import random, ssl; print(random.random(), ssl.RAND_bytes(8).hex())')"
echo "openssl=$(python3 -c 'import ssl; print(ssl.RAND_bytes(16).hex())')"
"""
_JAVASCRIPT = """
import crypto from "node:crypto";
console.log(JSON.stringify({
    "Math.random": Math.random(),
    "crypto.randomUUID": crypto.randomUUID(),
    "crypto.randomBytes": crypto.randomBytes(16).toString("hex"),
    "crypto.getRandomValues": [...globalThis.crypto.getRandomValues(new Uint8Array(16))].join(),
}))
"""


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server that has as many sandboxes ready as there will be clones."""
    settings = {"FUMEHOOD_TEMPLATE": "standard", "FUMEHOOD_POOL_MIN": str(CLONES), "FUMEHOOD_POOL_MAX": str(CLONES)}
    with service(tmp_path_factory.mktemp("clones") / "data", settings) as running:
        yield running


def pool_of(server: Service) -> dict[str, Any]:
    """The pool of the server's own template."""
    [pool] = json.loads(Caller(server).call("GET", "/fumehood/v1/pool").body)["pools"]
    return pool


@pytest.fixture(scope="module")
def clones(pooled: Service) -> Iterator[list[Session]]:
    """Sessions, all of them from the pool."""
    wait_until(lambda: pool_of(pooled)["ready"] == CLONES, f"{CLONES} ready sandboxes", _READY_SECONDS)
    client = pooled.client()
    started = [Session(client) for _ in range(CLONES)]
    assert pool_of(pooled)["hits"] == CLONES
    yield started
    for session in started:
        session.stop()


def of_each(clones: list[Session], tool: str, **arguments: Any) -> list[str]:
    """What the same call prints in each clone, all of them called at once."""

    def call(session: Session) -> str:
        result = session.invoke(tool, **arguments)
        assert not result.get("isError"), result
        return result["structuredContent"]["stdout"]

    with concurrent.futures.ThreadPoolExecutor(len(clones)) as pool:
        return [*pool.map(call, clones)]


def shared(answers: list[dict[str, Any]]) -> set[str]:
    """The sources that gave two clones the same."""
    return {name for name in answers[0] if len({str(answer[name]) for answer in answers}) < len(answers)}


def test_every_source_of_randomness_in_python_is_a_clones_own(clones: list[Session]) -> None:
    for _ in range(2):
        answers = [json.loads(text) for text in of_each(clones, "executeCode", language="python", code=_PYTHON)]
        assert shared(answers) == set()


def test_every_source_of_randomness_of_commands_is_a_clones_own(clones: list[Session]) -> None:
    for _ in range(2):
        texts = of_each(clones, "executeCommand", command=_SHELL)
        assert shared([dict(line.split("=", 1) for line in text.splitlines()) for text in texts]) == set()


@pytest.mark.parametrize("runtime", ["nodejs", "deno"])
def test_every_source_of_randomness_in_javascript_is_a_clones_own(clones: list[Session], runtime: str) -> None:
    texts = of_each(clones, "executeCode", language="javascript", runtime=runtime, code=_JAVASCRIPT)
    assert shared([json.loads(text) for text in texts]) == set()


def test_all_clones_have_the_one_name_that_there_is(clones: list[Session]) -> None:
    assert set(of_each(clones, "executeCommand", command="hostname; cat /proc/sys/kernel/hostname")) == {
        "sandbox\nsandbox\n"
    }


def test_clocks_are_right_and_go_on(clones: list[Session]) -> None:
    code = """
import time
before = time.time(), time.monotonic()
time.sleep(0.2)
print(before[0], time.time() - before[0], time.monotonic() - before[1])
"""
    for text in of_each(clones, "executeCode", language="python", code=code):
        now, wall_seconds, monotonic_seconds = map(float, text.split())
        assert abs(now - time.time()) < _CLOCK_SECONDS
        assert wall_seconds >= 0.2
        assert monotonic_seconds >= 0.2
    dates = [of_each(clones, "executeCommand", command="sleep 1; date +%s") for _ in range(2)]
    first, second = ([int(text) for text in texts] for texts in dates)
    assert all(later > earlier for earlier, later in zip(first, second, strict=True))
    assert all(abs(moment - time.time()) < _CLOCK_SECONDS for moment in second)


def test_the_pool_tells_of_the_machine_alone_and_only_to_principals(pooled: Service, clones: list[Session]) -> None:
    answer = json.loads(Caller(pooled).call("GET", "/fumehood/v1/pool").body)
    assert answer.keys() == {"pools", "memory"}
    assert 0 < answer["memory"]["usedBytes"] < answer["memory"]["totalBytes"]
    assert not any(session.id in json.dumps(answer) for session in clones)
    [pool] = answer["pools"]
    assert pool["template"].startswith("standard-")
    assert pool["sizes"].keys() == {"cpus", "memoryBytes", "diskBytes", "processes"}
    assert pool["hits"] >= CLONES
