"""What code shows comes as content blocks, in order, beside a text that is first and complete."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service import Service, Session, service
from tests.signing import text_of

_PNG = b"\x89PNG\r\n\x1a\n"
_IMPORTS = """
import matplotlib.pyplot as plt, numpy as np, pandas as pd
import IPython.display as ipd
from PIL import Image
"""
_FIGURE = "<Figure size 640x480 with 1 Axes>"
_INLINE_TEXT_BYTES_MAX = 16 * 1024


@pytest.fixture(scope="module")
def shared(client: Any) -> Iterator[Session]:
    """A session for all tests here."""
    session = Session(client)
    session.run(_IMPORTS)
    yield session
    session.stop()


def _blocks(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks after the text, which is first and is what was printed."""
    assert set(result) == {"content", "structuredContent", "isError"}
    assert result["content"][0] == {"type": "text", "text": text_of(result)}
    if not result["isError"]:
        assert text_of(result) == result["structuredContent"]["stdout"]
    return result["content"][1:]


def _images(result: dict[str, Any]) -> list[bytes]:
    blocks = _blocks(result)
    assert [(block["type"], block["mimeType"]) for block in blocks] == [("image", "image/png")] * len(blocks)
    return [block["data"] for block in blocks]


def _width_and_height(png: bytes) -> tuple[int, int]:
    assert png.startswith(_PNG)
    width, height = struct.unpack(">II", png[16:24])
    return width, height


# Figures

_DRAW = "plt.plot([1, 2, 3]); "
FIGURES: dict[str, tuple[str, int, str]] = {
    "shown": (f"{_DRAW}plt.show()", 1, _FIGURE),
    "left open": (f"{_DRAW}print('drawn')", 1, f"drawn\n{_FIGURE}"),
    "its axes last": ("pd.Series([1, 2]).plot()", 1, f"<Axes: >\n{_FIGURE}"),
    "last": (f"figure, axes = plt.subplots(); axes.{_DRAW[4:]}figure", 1, _FIGURE),
    "displayed": (f"figure, axes = plt.subplots(); axes.{_DRAW[4:]}display(figure)", 1, _FIGURE),
    "its own show": (
        f"figure, axes = plt.subplots(); axes.{_DRAW[4:]}figure.show(); print('after')",
        1,
        f"{_FIGURE}\nafter",
    ),
    "two, shown": (f"{_DRAW}plt.show(); print('between'); {_DRAW}plt.show()", 2, f"{_FIGURE}\nbetween\n{_FIGURE}"),
    "two, left open": (f"plt.figure(); {_DRAW}plt.figure(); {_DRAW}", 2, f"{_FIGURE}\n{_FIGURE}"),
    "saved and shown": (f"{_DRAW}plt.savefig('s.png'); plt.show()", 1, _FIGURE),
    "saved and not shown": (f"{_DRAW}plt.savefig('s.png'); print('saved')", 0, "saved"),
    "closed": (f"{_DRAW}plt.close(); print('closed')", 0, "closed"),
    "drawn for a file alone": (
        f"import matplotlib; matplotlib.use('Agg'); {_DRAW}plt.savefig('s.png'); plt.close(); print('x')\n"
        "matplotlib.use('module://matplotlib_inline.backend_inline')",
        0,
        "x",
    ),
    "shown by a backend that cannot": (
        f"import matplotlib; matplotlib.use('Agg'); {_DRAW}plt.show(); {_DRAW}plt.show()\n"
        "matplotlib.use('module://matplotlib_inline.backend_inline')",
        2,
        f"{_FIGURE}\n{_FIGURE}",
    ),
    "after the magic": (f"%matplotlib inline\n{_DRAW}", 1, _FIGURE),
    "a picture": ("Image.new('RGB', (30, 20), 'red')", 1, "<PIL.Image.Image image mode=RGB size=30x20>"),
    "a picture's own show": ("Image.new('L', (30, 20)).show()", 1, "<PIL.Image.Image image mode=L size=30x20>"),
}


@pytest.mark.parametrize(("code", "images", "text"), FIGURES.values(), ids=FIGURES)
def test_a_figure_gives_an_image_where_it_is_shown(shared: Session, code: str, images: int, text: str) -> None:
    result = shared.run(code)
    assert text_of(result) == text
    assert [data[:8] for data in _images(result)] == [_PNG] * images
    assert result["isError"] is False


def test_figures_come_in_the_order_in_which_they_are_shown(shared: Session) -> None:
    sizes = [(400, 300), (300, 400), (200, 200)]
    code = "\n".join(
        f"display(Image.new('RGB', {size}))" if size == (200, 200) else f"Image.new('RGB', {size}).show()"
        for size in sizes
    )
    assert [_width_and_height(data) for data in _images(shared.run(code))] == sizes


def test_figures_of_code_that_fails_are_given_too(shared: Session) -> None:
    result = shared.run(f"{_DRAW}plt.show(); print('shown'); 1 / 0")
    assert (result["isError"], result["structuredContent"]["exitCode"]) == (True, 1)
    assert result["structuredContent"]["stdout"] == f"{_FIGURE}\nshown"
    assert "ZeroDivisionError" in text_of(result)
    assert len(_images(result)) == 1


def test_a_figure_left_open_does_not_come_again_in_the_next_call(shared: Session) -> None:
    assert len(_images(shared.run(_DRAW))) == 1
    assert _blocks(shared.run("print(plt.get_fignums())")) == []


def test_context_that_is_cleared_takes_its_figures_with_it(shared: Session) -> None:
    shared.run(f"%config InlineBackend.close_figures = False\n{_DRAW}")
    assert text_of(shared.run("print(plt.get_fignums())")) == "[1]"
    shared.run("%config InlineBackend.close_figures = True")
    assert (
        text_of(shared.run(f"{_IMPORTS}\nprint(plt.get_fignums(), len(Out), len(In))", clearContext=True)) == "[] 0 2"
    )


# All else that can be displayed: block by block

TEXTS: dict[str, tuple[str, str, str, str]] = {
    "a table": (
        "pd.DataFrame({'a': [1, 2]})",
        "   a\n0  1\n1  2".strip(),
        "text/html",
        '<div>\n<table border="1" class="dataframe">',
    ),
    "HTML": ("ipd.HTML('<b>é</b>')", "<IPython.core.display.HTML object>", "text/html", "<b>é</b>"),
    "Markdown": ("ipd.Markdown('# Title')", "# Title", "text/markdown", "# Title"),
    "LaTeX": ("ipd.Latex('$x^2$')", "$x^2$", "text/latex", "$x^2$"),
    "JSON": ("ipd.JSON({'a': [1, None]})", '{"a": [1, null]}', "application/json", '{"a": [1, null]}'),
    "SVG": (
        "ipd.SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')",
        "<IPython.core.display.SVG object>",
        "image/svg+xml",
        "<svg",
    ),
    "a figure as SVG": (
        f"%config InlineBackend.figure_formats = ['svg']\n{_DRAW}plt.show()\n"
        "%config InlineBackend.figure_formats = ['png']",
        _FIGURE,
        "image/svg+xml",
        "<?xml",
    ),
    "a class with a form of its own": (
        "class Shown:\n  def _repr_html_(self): return '<i>own</i>'\n  def __repr__(self): return 'own'\nShown()",
        "own",
        "text/html",
        "<i>own</i>",
    ),
}


@pytest.mark.parametrize(("code", "text", "media_type", "beginning"), TEXTS.values(), ids=TEXTS)
def test_a_form_that_is_text_is_a_resource(
    shared: Session, code: str, text: str, media_type: str, beginning: str
) -> None:
    result = shared.run(code)
    assert text_of(result) == text
    [block] = _blocks(result)
    assert block["type"] == "resource"
    resource = block["resource"]
    assert (resource["type"], resource["mimeType"]) == ("text", media_type)
    assert resource["uri"].startswith("display:///1.")
    assert resource["text"].startswith(beginning)


PICTURES = {
    "png": ("ipd.Image('p.png')", "image/png", _PNG),
    "jpeg": ("ipd.Image('p.jpg')", "image/jpeg", b"\xff\xd8\xff"),
    "gif": ("ipd.Image('p.gif')", "image/gif", b"GIF8"),
    "webp": ("ipd.Image('p.webp')", "image/webp", b"RIFF"),
    "raw bytes": ("display({'image/png': open('p.png', 'rb').read()}, raw=True)", "image/png", _PNG),
}


@pytest.mark.parametrize(("code", "media_type", "beginning"), PICTURES.values(), ids=PICTURES)
def test_a_picture_of_any_kind_is_an_image(shared: Session, code: str, media_type: str, beginning: bytes) -> None:
    shared.run("for end in ('png', 'jpg', 'gif', 'webp'): Image.new('RGB', (9, 9), 'blue').save('p.' + end)")
    [block] = _blocks(shared.run(code))
    assert (block["type"], block["mimeType"]) == ("image", media_type)
    assert block["data"].startswith(beginning)


LINKED = {
    "sound": ("ipd.Audio(np.sin(np.arange(4000)), rate=8000)", "audio/wav", b"RIFF"),
    "film": ("open('v.mp4', 'wb').write(b'film'); ipd.Video('v.mp4')", "video/mp4", b"film"),
    "a long page": (f"ipd.HTML('<p>' + 'x' * {_INLINE_TEXT_BYTES_MAX})", "text/html", b"<p>xxx"),
}


@pytest.mark.parametrize(("code", "media_type", "beginning"), LINKED.values(), ids=LINKED)
def test_other_bytes_and_long_texts_are_links_to_files_that_can_be_read(
    shared: Session, code: str, media_type: str, beginning: bytes
) -> None:
    result = shared.run(code)
    [block] = _blocks(result)
    assert (block["type"], block["mimeType"], block["description"]) == ("resource_link", media_type, "File")
    path = block["uri"].removeprefix("file:///")
    assert text_of(result).endswith(f"[{media_type} of {block['size']} bytes: in {path}]")
    resource = shared.invoke("readFiles", paths=[path])["content"][0]["resource"]
    data = resource.get("blob") or resource["text"].encode()
    assert (len(data), data[: len(beginning)]) == (block["size"], beginning)


def test_values_that_have_no_other_form_give_text_alone(shared: Session) -> None:
    for code, text in {
        "6 * 7": "42",
        "'a'": "'a'",
        "[1, 'b']": "[1, 'b']",
        "None": "",
        "np.arange(3)": "array([0, 1, 2])",
        "ipd.Javascript('alert(1)')": "<IPython.core.display.Javascript object>",
        "pd.DataFrame({'a': [1]});": "",
    }.items():
        result = shared.run(code)
        assert (text_of(result), _blocks(result)) == (text, [])


def test_displays_and_prints_keep_their_order_in_the_text(shared: Session) -> None:
    code = "print(1); display(ipd.Markdown('two')); print(3); display(Image.new('L', (2, 2))); print(5)\n6"
    result = shared.run(code)
    assert text_of(result) == "1\ntwo\n3\n<PIL.Image.Image image mode=L size=2x2>\n5\n6"
    assert [block["type"] for block in _blocks(result)] == ["resource", "image"]


def test_what_is_cleared_or_updated_is_shown_as_it_is_in_the_end(shared: Session) -> None:
    result = shared.run("for n in range(100):\n  ipd.clear_output(wait=True)\n  display(ipd.HTML(f'<p>{n}</p>'))")
    assert [block["resource"]["text"] for block in _blocks(result)] == ["<p>99</p>"]
    result = shared.run("shown = display(ipd.HTML('first'), display_id=True); shown.update(ipd.HTML('second'));")
    assert [block["resource"]["text"] for block in _blocks(result)] == ["second"]


def test_a_broken_form_leaves_the_others(shared: Session) -> None:
    code = "class Broken:\n  def _repr_png_(self): return b'no picture'\n  def _repr_html_(self): return 7\nBroken()"
    result = shared.run(code)
    assert (result["isError"], _blocks(result)) == (False, [])
    result = shared.run("class Failing:\n  def _repr_html_(self): raise ValueError('no form')\nFailing()")
    assert (result["isError"], _blocks(result)) == (False, [])
    assert "ValueError: no form" in result["structuredContent"]["stderr"]


# Bounds


def test_more_than_one_call_can_show_is_said_to_be_left_out(shared: Session) -> None:
    result = shared.run("for n in range(66): display(ipd.HTML(str(n)))")
    assert [block["resource"]["text"] for block in _blocks(result)] == [str(n) for n in range(64)]
    assert text_of(result).count("[left out here: text/html, as one call can show 64 things]") == 2
    result = shared.run("display({'image/png': b'\\x89PNG\\r\\n\\x1a\\n' + bytes(17_000_000)}, raw=True)")
    assert _blocks(result) == []
    assert "[left out here: image/png of 17000008 bytes" in text_of(result)


def test_pictures_beside_a_long_text_are_kept_in_files_as_far_as_they_do_not_fit(shared: Session) -> None:
    picture = "display({'image/png': b'\\x89PNG\\r\\n\\x1a\\n' + bytes(%d)}, raw=True)"
    result = shared.run(f"{picture % 7_000_000}\n{picture % 7_000_000}\nprint('x' * 4_000_000)")
    blocks = _blocks(result)
    assert [block["type"] for block in blocks] == ["image", "resource_link"]
    assert text_of(result).count("x" * 4_000_000) == 1
    kept = blocks[1]["uri"].removeprefix("file:///")
    assert text_of(result).endswith(f"[image/png of 7000008 bytes: in {kept}]")
    assert shared.sh(f"stat -c %s {kept}")["structuredContent"]["stdout"] == "7000008\n"


def test_pictures_can_be_links_by_a_setting(new_data: Path) -> None:
    with service(new_data, {"FUMEHOOD_IMAGES_AS_LINKS": "true"}) as running:
        session = Session(running.client())
        result = session.run(f"import matplotlib.pyplot as plt; {_DRAW}plt.show()")
        [block] = _blocks(result)
        assert (block["type"], block["mimeType"]) == ("resource_link", "image/png")
        path = block["uri"].removeprefix("file:///")
        assert session.invoke("readFiles", paths=[path])["content"][0]["resource"]["blob"].startswith(_PNG)
        assert json.dumps(block)
        session.stop()


def test_pictures_can_be_links_for_one_interpreter_by_a_tag_and_an_svg_stays_a_text(server: Service) -> None:
    control = server.client("bedrock-agentcore-control")
    made = control.create_code_interpreter(
        name="linking",
        networkConfiguration={"networkMode": "SANDBOX"},
        tags={"fumehood:images-as-links": "true"},
    )
    session = Session(server.client(), made["codeInterpreterId"])
    code = f"{_IMPORTS}{_DRAW}plt.show(); ipd.display(ipd.SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))"
    assert [block["type"] for block in _blocks(session.run(code))] == ["resource_link", "resource"]
    # What is tagged counts from the next call on.
    control.untag_resource(resourceArn=made["codeInterpreterArn"], tagKeys=["fumehood:images-as-links"])
    assert [block["type"] for block in _blocks(session.run(code))] == ["image", "resource"]
    session.stop()
    control.delete_code_interpreter(codeInterpreterId=made["codeInterpreterId"])
