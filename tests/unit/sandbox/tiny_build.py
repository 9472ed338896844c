"""A real build of a small template in a process of its own, for tests that end it: `tiny_build.py DATA`.

Prints each phase and each step of it as it comes, then the folder of the finished template.
"""

import asyncio
import sys
from pathlib import Path

from fumehood.sandbox.template import catalog
from fumehood.sandbox.template.progress import Silent
from fumehood.sandbox.template.recipe import Recipe
from fumehood.settings import Settings

RECIPE = Recipe("tiny", ("media-types",))


class Lines(Silent):
    """Progress as lines on stdout."""

    def phase(self, title: str, total: int | None = None) -> None:
        """A line `phase TITLE`."""
        print("phase", title, total or "", flush=True)

    def advance(self, done: int, total: int, detail: str) -> None:
        """A line `step DETAIL`."""
        print("step", detail, done, total, flush=True)

    def note(self, text: str) -> None:
        """A line `note TEXT`."""
        print("note", text, flush=True)


if __name__ == "__main__":
    built = asyncio.run(catalog.ensure_recipe(RECIPE, Settings(data=Path(sys.argv[1])), Lines()))
    print(f"built {built.root}", flush=True)
