"""Programs of tests/conformance/programs run through a real client, what they print and show, and their input."""

import collections
import contextlib
import io
import random
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest
from PIL import Image

from tests.service import Session
from tests.signing import text_of

PROGRAMS = Path(__file__).parent / "conformance" / "programs"
_LANGUAGES = {".py": "python", ".js": "javascript", ".ts": "typescript"}


class SdkSession(Session):
    """A session used through the AgentCore SDK."""

    def __init__(self, sdk: Any) -> None:
        self._sdk = sdk
        self.id = sdk.start()

    def invoke_all(self, name: str, **arguments: Any) -> list[dict[str, Any]]:
        answer = self._sdk.invoke(name, arguments)
        with contextlib.closing(answer["stream"]) as stream:
            return [event["result"] for event in stream]

    def stop(self) -> None:
        self._sdk.stop()


@contextlib.contextmanager
def _sdk_session(variables: Mapping[str, str]) -> Iterator[Session]:
    with warnings.catch_warnings():
        # The SDK's own, of the libraries that it is built on.
        warnings.simplefilter("ignore", DeprecationWarning)
        from bedrock_agentcore.tools.code_interpreter_client import CodeInterpreter
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        sdk = CodeInterpreter(variables["AWS_REGION"], session=boto3.Session())
    try:
        started = SdkSession(sdk)
        yield started
        started.stop()
    finally:
        sdk.data_plane_client.close()
        sdk.control_plane_client.close()


@pytest.fixture
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """A new session of the template `standard`: through boto3, or through the SDK where a test asks for that."""
    if getattr(request, "param", "boto3") == "sdk":
        with _sdk_session(request.getfixturevalue("standard_variables")) as started:
            yield started
    else:
        started = Session(request.getfixturevalue("standard_client"))
        yield started
        started.stop()


through_the_sdk = pytest.mark.parametrize("session", ["sdk"], indirect=True)


def attempt(session: Session, program: str, **arguments: Any) -> dict[str, Any]:
    """The result of a program: code of the language that its name's end tells, or a shell's commands."""
    source = (PROGRAMS / program).read_text()
    suffix = Path(program).suffix
    if suffix == ".sh":
        return session.sh(source)
    return session.invoke("executeCode", language=_LANGUAGES[suffix], code=source, **arguments)


def run(session: Session, program: str, **arguments: Any) -> dict[str, Any]:
    """The result of a program that must succeed."""
    result = attempt(session, program, **arguments)
    assert result["isError"] is False, text_of(result)
    return result


def out(result: dict[str, Any]) -> str:
    """What was printed. The text, which most clients read alone, must have all of it."""
    printed = result["structuredContent"]["stdout"]
    assert printed in text_of(result)
    return printed


def tells(result: dict[str, Any], *lines: str) -> None:
    """Each of these lines was printed, in this order."""
    printed = iter(out(result).splitlines())
    for line in lines:
        assert line in printed, f"{line!r} is not there, or not in its place:\n{out(result)}"


def number(result: dict[str, Any], label: str) -> float:
    """The number that was printed after the label."""
    found = re.search(rf"{re.escape(label)}\D*?(-?[\d,]+(?:\.\d+)?)", out(result))
    assert found is not None, f"{label!r} is not there:\n{out(result)}"
    return float(found[1].replace(",", ""))


def rows(result: dict[str, Any], *first: str) -> list[list[str]]:
    """The printed lines that begin with one of these words, split at white space."""
    return [line.split() for line in out(result).splitlines() if line.split()[:1] and line.split()[0] in first]


def images(result: dict[str, Any]) -> list[Image.Image]:
    """The pictures of a result, decoded."""
    blocks = [block for block in result["content"] if block["type"] == "image"]
    assert {block["mimeType"] for block in blocks} <= {"image/png"}
    pictures = [Image.open(io.BytesIO(block["data"]), formats=["PNG"]) for block in blocks]
    for picture in pictures:
        picture.load()
    return pictures


def resource(result: dict[str, Any], mime_type: str) -> str:
    """The text of the one resource of that type."""
    found = [block["resource"] for block in result["content"] if block["type"] == "resource"]
    (text,) = [each["text"] for each in found if each["mimeType"] == mime_type]
    return text


def give(session: Session, files: Mapping[str, str]) -> None:
    """Put texts into the session's working folder."""
    content = [{"path": path, "text": text} for path, text in files.items()]
    assert session.invoke("writeFiles", content=content)["isError"] is False


def take(session: Session, path: str) -> bytes:
    """A file of the session's working folder."""
    result = session.invoke("readFiles", paths=[path])
    assert result["isError"] is False, text_of(result)
    (block,) = result["content"]
    content = block["resource"]
    return content["text"].encode() if content["type"] == "text" else content["blob"]


def picture(data: bytes) -> Image.Image:
    """A decoded picture, of any format."""
    opened = Image.open(io.BytesIO(data))
    opened.load()
    return opened


def csv_of(header: str, records: list[tuple[Any, ...]]) -> str:
    """A CSV file."""
    return "\n".join([header, *(",".join(map(str, record)) for record in records)]) + "\n"


def sums(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The sum of the values of each key."""
    totals: dict[str, float] = collections.defaultdict(float)
    for key, value in pairs:
        totals[key] += value
    return dict(totals)


# Input


def taxi_trips() -> list[tuple[Any, ...]]:
    """Rides of a taxi company: zone, kilometres, fare, tip."""
    dice = random.Random(2)
    return [
        (
            dice.choice(["Airport", "Centre", "Harbour"]),
            dice.randint(5, 300) / 10,
            dice.choice([0, *range(400, 9000, 25)]) / 100,
            dice.randint(0, 500) / 100,
        )
        for _ in range(600)
    ]


def shop_orders() -> list[dict[str, Any]]:
    """Orders of a shop: customer, status, total."""
    dice = random.Random(7)
    return [
        {
            "customer": dice.choice(["ada", "bob", "cleo"]),
            "status": dice.choice(["paid", "paid", "open"]),
            "total": dice.randint(100, 99999) / 100,
        }
        for _ in range(80)
    ]


CATALOGUE = """<html><body>
<div class="product" data-id="1"><h2> Kettle </h2><span class="price">€ 39.90</span><a href="/kettle">more</a></div>
<div class="product sold-out" data-id="2"><h2>Teapot</h2><span class="price">€ 24.50</span></div>
<div class="product" data-id="3"><h2>Caf&eacute; set</h2><span class="price">€ 1,055</span><a href="/press">-</a></div>
<table><tr><th>Day</th><th>Open</th></tr><tr><td>Mon</td><td>9-17</td></tr></table>
</body></html>"""
CATALOGUE_AVERAGE = f"Average price: {(39.9 + 24.5 + 1055) / 3:.2f}"
