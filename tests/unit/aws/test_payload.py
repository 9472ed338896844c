"""JSON with large blobs in it is what it would be had each been a string of base64 from the start."""

import base64
import json
import math
from typing import Any

import pytest

from fumehood.aws.payload import LARGE_BLOB_BYTES, LargeBlob, encode

_SIZES = [0, 1, 2, 3, LARGE_BLOB_BYTES + 1, 192 * 1024 - 1, 192 * 1024, 192 * 1024 + 1, 1_000_000]


def _content(size: int) -> bytes:
    return bytes(n % 251 for n in range(size))


@pytest.mark.parametrize("size", _SIZES)
def test_a_blob_is_its_base64(size: int) -> None:
    found = encode({"before": "ü", "blob": LargeBlob(_content(size)), "after": [1, None, True]})
    assert found.is_in_parts
    whole = found.whole()
    assert found.size == len(whole)
    wanted = {"before": "ü", "blob": base64.b64encode(_content(size)).decode(), "after": [1, None, True]}
    assert json.loads(whole) == wanted
    assert whole == json.dumps(wanted, ensure_ascii=False, separators=(",", ":")).encode()


def test_blobs_keep_their_order_whatever_texts_are_between_them() -> None:
    contents = [_content(size) for size in _SIZES]
    texts = ['"', "\\", '","blob":"', "\ud800", "0" * 32, "\0"]
    value = [[LargeBlob(content), text] for content, text in zip(contents, texts * 2, strict=False)]
    found = encode(value)
    assert found.size == len(found.whole())
    read = json.loads(found.whole())
    assert [base64.b64decode(blob) for blob, _ in read] == contents
    assert [text for _, text in read] == [text.replace("\ud800", "?") for _, text in value]


def test_no_piece_is_large_or_made_before_it_is_asked_for() -> None:
    found = encode(LargeBlob(_content(10_000_000)))
    assert max(map(len, found.pieces())) <= 256 * 1024
    assert next(found.pieces()) == b'"'


def test_what_has_no_large_blob_is_one_text() -> None:
    found = encode({"text": "x" * 100_000})
    assert not found.is_in_parts
    assert [*found.pieces()] == [found.whole()]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_has_not_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode([value])


@pytest.mark.parametrize("value", [b"bytes", object(), {1, 2}])
def test_what_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="not JSON"):
        encode([value])
