"""What the documents point at exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = ["README.md", "SPECIFICATION.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
_LINK = re.compile(r"\]\(([^)#]+)\)")
_PATH = re.compile(r"(?<![\w/.])(?:tests|docs|scripts|src|benchmarks)/[\w./-]*\w")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_and_path_leads_to_something(document: str) -> None:
    text = (ROOT / document).read_text()
    links = [(ROOT / document).parent / link for link in _LINK.findall(text) if "://" not in link]
    paths = [ROOT / path for path in _PATH.findall(text) if document != "docs/architecture.md" or "." in path]
    assert [str(path) for path in [*links, *paths] if not path.exists()] == []


def test_every_room_and_no_other_is_in_the_architecture() -> None:
    tree = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    lines = [re.split(r" {2,}", line.strip())[0] for line in tree.splitlines() if re.match(r"  \S", line)]
    listed = {name for line in lines for name in line.split()}
    package = ROOT / "src/fumehood"
    rooms = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")} | {
        path.name for path in package.glob("*.py")
    }
    assert listed == rooms - {"__init__.py"}
