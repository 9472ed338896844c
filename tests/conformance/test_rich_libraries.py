"""What the libraries of the template `standard` show comes as the richest block that can be made without a network."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.service import Session
from tests.signing import text_of


@pytest.fixture(scope="module")
def shared(standard_client: Any) -> Iterator[Session]:
    """A session for all tests here."""
    session = Session(standard_client)
    yield session
    session.stop()


_PLOTLY = "import plotly.graph_objects as go; figure = go.Figure(go.Bar(x=['a', 'b'], y=[1, 2]))\n"
_BOKEH = "from bokeh.plotting import figure, show, output_notebook; p = figure(); p.scatter([1], [2])\n"
_SYMPY = "import sympy; x = sympy.symbols('x')\n"
# Code, the text, the block's media type, what is in its text.
PAGES = {
    "a plotly figure, shown": (f"{_PLOTLY}figure.show()", "<plotly figure: bar>", "text/html", "plotly"),
    "a plotly figure, last": (f"{_PLOTLY}figure", "<plotly figure: bar>", "text/html", "plotly"),
    "a bokeh plot, shown": (f"{_BOKEH}show(p)", "<bokeh figure>", "text/html", "bokeh"),
    "a bokeh plot, for a notebook": (f"{_BOKEH}output_notebook(); show(p)", "<bokeh figure>", "text/html", "bokeh"),
    "a bokeh plot, last": (f"{_BOKEH}p", None, "text/html", "bokeh"),
    "an expression": (f"{_SYMPY}sympy.integrate(2 * x, x)", "x**2", "text/latex", "x^{2}"),
    "a matrix": (f"{_SYMPY}sympy.Matrix([[x, 1]])", "Matrix([[x, 1]])", "text/latex", "matrix"),
    "a table of polars'": ("import polars; polars.DataFrame({'a': [7]})", None, "text/html", "<td>7</td>"),
    "a table in colours": (
        "import pandas; pandas.DataFrame({'a': [1, 7]}).style.highlight_max()",
        None,
        "text/html",
        "background-color: yellow",
    ),
}


@pytest.mark.parametrize(("code", "text", "media_type", "content"), PAGES.values(), ids=PAGES)
def test_what_is_shown_comes_as_text_and_as_one_resource(
    shared: Session, code: str, text: str | None, media_type: str, content: str
) -> None:
    result = shared.run(code)
    assert (result["isError"], result["structuredContent"]["stderr"]) == (False, "")
    assert text_of(result)
    if text is not None:
        assert text_of(result) == text
    [block] = result["content"][1:]
    assert (block["type"], block["resource"]["mimeType"]) == ("resource", media_type)
    assert content in block["resource"]["text"]


FIGURES = {
    "seaborn": "import seaborn; seaborn.histplot([1, 2, 2, 3])",
    "seaborn's objects": "import seaborn.objects; seaborn.objects.Plot([1, 2], [2, 3]).add(seaborn.objects.Dot())",
    "networkx": "import networkx; networkx.draw(networkx.path_graph(3))",
    "sympy": f"{_SYMPY}sympy.plot(x**2);",
    "scikit-image": "import numpy, skimage.io, matplotlib.pyplot as plt; plt.imshow(numpy.eye(4))",
    "a picture in a window": "from PIL import Image; Image.new('RGB', (9, 9)).show()",
}


@pytest.mark.parametrize("code", FIGURES.values(), ids=FIGURES)
def test_libraries_that_draw_with_matplotlib_or_pillow_give_an_image(shared: Session, code: str) -> None:
    result = shared.run(code)
    assert result["isError"] is False, result
    [block] = result["content"][1:]
    assert (block["type"], block["mimeType"], block["data"][:4]) == ("image", "image/png", b"\x89PNG")


def test_an_estimator_is_text_alone(shared: Session) -> None:
    result = shared.run("from sklearn.linear_model import LinearRegression as R; R().fit([[1], [2]], [1, 2])")
    assert (text_of(result), result["content"][1:]) == ("LinearRegression()", [])


def test_a_bokeh_plot_also_goes_to_the_file_that_was_named(shared: Session) -> None:
    result = shared.run(f"from bokeh.io import output_file\n{_BOKEH}output_file('plot.html'); show(p)")
    page = shared.invoke("readFiles", paths=["plot.html"])["content"][0]["resource"]["text"]
    assert "bokeh" in page
    assert [block["resource"]["mimeType"] for block in result["content"][1:]] == ["text/html"]
