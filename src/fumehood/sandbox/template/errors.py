"""What goes wrong with templates."""

from fumehood.errors import FumehoodError


class TemplateError(FumehoodError):
    """A template could not be built, found or removed; the message says why and what would help."""


def printable(text: str) -> str:
    """A line of others, made harmless to a terminal: control characters are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
