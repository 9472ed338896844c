"""What several operations of the OpenAPI document have alike."""

from typing import Any

Schema = dict[str, Any]
TIME: Schema = {"type": "string", "format": "date-time"}
COUNT: Schema = {"type": "integer", "minimum": 0}
SIZES: Schema = {
    "type": "object",
    "properties": dict.fromkeys(("cpus", "memoryBytes", "diskBytes", "processes"), COUNT),
}
"""What a sandbox may use."""


def parameter(name: str, description: str) -> Schema:
    """A variable of a path."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": description}


def body(schema: Schema) -> Schema:
    """JSON that is sent."""
    return {"content": {"application/json": {"schema": schema}}}


def answer(told: str, schema: Schema) -> Schema:
    """JSON that is answered."""
    return {"description": told} | body(schema)
