"""What goes wrong with templates."""

from fumehood.errors import FumehoodError


class TemplateError(FumehoodError):
    """A template could not be built, found or removed; the message says why and what would help."""
