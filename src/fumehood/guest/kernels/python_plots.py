"""Plotting libraries in the Python kernel: what they would show in a window or a browser is displayed instead.

Nothing is imported for it: a library is fitted to the kernel in the moment that the user's code imports it.
"""

import functools
import importlib
import importlib.util
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from weakref import WeakSet

_INLINE_BACKEND = "module://matplotlib_inline.backend_inline"


class AfterImport(MetaPathFinder):
    """Calls a function with a module as soon as it has been imported for the first time."""

    def __init__(self, functions: dict[str, Callable[[ModuleType], None]]) -> None:
        self._functions = functions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own, with a loader that calls the function at its end; None for all other modules."""
        del path, target
        function = self._functions.pop(fullname, None)
        if function is None:
            return None
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_fit(module: ModuleType) -> None:
            execute(module)
            try:
                function(module)
            except Exception as error:
                warnings.warn(f"{fullname} shows nothing here, it is another than expected: {error!r}", stacklevel=2)

        spec.loader.exec_module = execute_and_fit  # type: ignore[method-assign]
        return spec


def fit_plots(shell: Any) -> None:
    """Have the libraries fitted to `shell` when they are imported."""
    figures = _Figures(shell)
    sys.meta_path.insert(
        0,
        AfterImport(
            {
                "matplotlib": _use_inline_backend,
                "matplotlib.backend_bases": figures.watch,
                "PIL.ImageShow": _show_images_inline,
                "plotly.io._renderers": _fit_plotly,
                "bokeh.io.notebook": _silence_bokeh,
                "bokeh.io.showing": functools.partial(_fit_bokeh, shell.display_formatter.formatters["text/html"]),
                "sklearn": _print_estimators,
            }
        ),
    )


def close_figures() -> None:
    """Close all figures of matplotlib's, if there can be any."""
    helpers = sys.modules.get("matplotlib._pylab_helpers")
    if helpers is not None:
        helpers.Gcf.destroy_all()


def draw_once() -> None:
    """Draw a figure and write a table, as the first ones load what takes a while. ImportError where these cannot be."""
    pyplot = _module("matplotlib.pyplot")
    figure, axes = pyplot.subplots()
    axes.plot([0, 1])
    _module("IPython.core.pylabtools").print_figure(figure)
    pyplot.close(figure)
    _module("pandas").DataFrame({"a": [0]})._repr_html_()


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _use_inline_backend(matplotlib: Any) -> None:
    matplotlib.rcParams["backend"] = _INLINE_BACKEND


class _Figures:
    """Matplotlib's figures: the inline backend shows, at a cell's end, those that the cell left open.

    Not those that it displayed already, nor those that it wrote to a file: they have gone where they were meant to.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._printed: WeakSet[Any] = WeakSet()

    def watch(self, backend_bases: Any) -> None:
        """Notice figures that are displayed or saved."""
        base = backend_bases.FigureCanvasBase
        print_figure = base.print_figure

        @functools.wraps(print_figure)
        def noticed(canvas: Any, *args: Any, **options: Any) -> Any:
            __tracebackhide__ = True
            result = print_figure(canvas, *args, **options)
            self._printed.add(canvas.figure)
            return result

        base.print_figure = noticed
        backend_bases.FigureManagerBase.show = _show
        backend_bases._Backend.show = classmethod(_show_all)
        # Registered before the backend is loaded, and so called before the backend shows what is open.
        self._shell.events.register("post_execute", self._close_printed)

    def _close_printed(self) -> None:
        if not self._printed:
            return
        open_figures = _module("matplotlib._pylab_helpers").Gcf
        inline = sys.modules.get("matplotlib_inline.config")
        if inline is not None and inline.InlineBackend.instance().close_figures:
            for manager in open_figures.get_all_fig_managers():
                if manager.canvas.figure in self._printed:
                    open_figures.destroy(manager)
        self._printed.clear()


def _show(manager: Any) -> None:
    """`Figure.show()`."""
    _module("IPython.display").display(manager.canvas.figure)


def _show_all(backend: type, *, block: bool | None = None) -> None:
    """`pyplot.show()` with a backend that has no screen; closes what it showed, as somebody would the windows."""
    del backend, block
    open_figures = _module("matplotlib._pylab_helpers").Gcf
    for manager in open_figures.get_all_fig_managers():
        _show(manager)
    open_figures.destroy_all()


def _show_images_inline(image_show: Any) -> None:
    """`Image.show()`: without a screen, no other viewer than IPython's has anything to show it on."""
    viewer = getattr(image_show, "IPythonViewer", None)
    if viewer is not None:
        image_show.register(viewer, 0)


def _fit_plotly(renderers: Any) -> None:
    """Figures as PNG where there is something that draws them, else as a page."""
    display = _module("IPython.display").display
    base: Any = _module("plotly.io._base_renderers").ExternalRenderer

    class Renderer(base):
        """Displays a figure."""

        def render(self, fig_dict: dict[str, Any]) -> None:
            """As PNG, or as a page that takes the drawing library from the web."""
            display({"text/plain": _plotly_text(fig_dict)} | _plotly_forms(fig_dict), raw=True)

    renderers.renderers["fumehood"] = Renderer()
    renderers.renderers.default = "fumehood"


def _plotly_text(figure: dict[str, Any]) -> str:
    kinds = ", ".join(str(trace.get("type", "scatter")) for trace in figure.get("data", ()))
    return f"<plotly figure: {kinds or 'empty'}>"


def _plotly_forms(figure: dict[str, Any]) -> dict[str, Any]:
    io = _module("plotly.io")
    if importlib.util.find_spec("kaleido") is not None:
        try:
            return {"image/png": io.to_image(figure, format="png", validate=False)}
        except Exception as error:
            print(f"no picture of the plotly figure could be drawn, so here is a page: {error}", file=sys.stderr)
    return {"text/html": io.to_html(figure, include_plotlyjs="cdn", full_html=True, validate=False)}


def _fit_bokeh(html_formatter: Any, showing: Any) -> None:
    """`show()`, or a plot as the last value: the page; and the file where one was asked for."""
    show_elsewhere = showing.show

    @functools.wraps(show_elsewhere)
    def show(obj: Any, *args: Any, **options: Any) -> Any:
        __tracebackhide__ = True
        if not isinstance(obj, _module("bokeh.models").Model):
            return show_elsewhere(obj, *args, **options)
        if _module("bokeh.io.state").curstate().file is not None:
            _module("bokeh.io.saving").save(obj)
        forms = {"text/plain": f"<bokeh {type(obj).__name__}>", "text/html": _bokeh_page(obj)}
        _module("IPython.display").display(forms, raw=True)
        return None

    showing.show = show
    html_formatter.for_type_by_name("bokeh.models.layouts", "LayoutDOM", _bokeh_page)


def _bokeh_page(plot: Any) -> str:
    file = _module("bokeh.io.state").curstate().file
    resources = _module("bokeh.resources").CDN
    page: str = _module("bokeh.embed").file_html(
        plot, resources, title=file.title if file is not None else "Bokeh Plot"
    )
    return page


def _silence_bokeh(notebook: Any) -> None:
    """`output_notebook()` would display a logo, and scripts for a page that is not there."""
    notebook.publish_display_data = lambda *_args, **_options: None  # pyright: ignore[reportUnknownLambdaType]


def _print_estimators(sklearn: Any) -> None:
    """An estimator as the last value, which is often the case after a fit: its diagram is for pages, and 30 KB long."""
    sklearn.set_config(display="text")
