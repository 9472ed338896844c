"""The part of the OpenAPI document that is about sessions and snapshots."""

from typing import Any

from fumehood.extension.openapi_parts import SIZES, TIME, answer, body, parameter

_NULLABLE_TEXT = {"type": ["string", "null"]}
SESSION_ID = parameter("id", "a session's id")
"""The parameter of every path that names a session."""
_SNAPSHOT_ID = parameter("id", "a snapshot's id")
_SESSION = {
    "type": "object",
    "properties": {
        "sessionId": {"type": "string"},
        "codeInterpreterIdentifier": {"type": "string"},
        "name": _NULLABLE_TEXT,
        "status": {"enum": ["READY", "TERMINATED"], "description": "as the AWS operations tell it"},
        "state": {
            "enum": ["starting", "ready", "hibernated", "stopping", "terminated"],
            "description": "hibernated: its state is in an image, and the next call gives it a sandbox again",
        },
        "template": {"type": "string"},
        "isolation": {
            "type": "string",
            "description": "as it really is; with its network, while it has a sandbox",
        },
        "startedFrom": {"enum": ["pool", "restore", "cold", "snapshot", None]},
        "sizes": SIZES,
        "sessionTimeoutSeconds": {"type": "integer"},
        "createdAt": TIME,
        "updatedAt": TIME,
        "deadlineAt": TIME,
        "endedAt": {"type": ["string", "null"], "format": "date-time"},
        "endReason": {
            "enum": [
                *("stopped", "expired", "out_of_memory", "sandbox_crashed", "start_failed", "host_lost", "quota"),
                *("image_lost", "unresponsive", None),
            ]
        },
        "endDetail": _NULLABLE_TEXT,
        "cpuSeconds": {"type": "number", "description": "processor time of all its sandboxes"},
        "memoryBytes": {"type": "integer", "description": "held now"},
        "diskBytes": {
            "type": "integer",
            "description": "what its disk takes of the machine's now: what was removed counts until it is given back",
        },
        "peak": {"type": "object", "properties": {"memoryBytes": {"type": "integer"}}},
        "image": {
            "type": ["object", "null"],
            "properties": {"sizeBytes": {"type": "integer", "description": "on disk, beside the template's"}},
        },
    },
}
_SNAPSHOT = {
    "type": "object",
    "required": ["snapshotId", "sessionId", "codeInterpreterIdentifier", "template", "sizeBytes", "createdAt"],
    "properties": {
        "snapshotId": {"type": "string"},
        "sessionId": {"type": "string", "description": "the session whose state it is"},
        "codeInterpreterIdentifier": {"type": "string"},
        "name": {"type": "string"},
        "template": {"type": "string"},
        "sizeBytes": {"type": "integer"},
        "createdAt": TIME,
        "expiresAt": TIME,
    },
}
_STARTED = {
    "type": "object",
    "required": ["sessionId", "codeInterpreterIdentifier", "createdAt", "deadlineAt"],
    "properties": {
        "sessionId": {"type": "string"},
        "codeInterpreterIdentifier": {"type": "string"},
        "createdAt": TIME,
        "deadlineAt": TIME,
        "snapshotId": {"type": "string"},
        "forkedFrom": {"type": "string"},
    },
}
_NAME = {"type": "string", "minLength": 1, "maxLength": 100}
_START = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": _NAME,
        "sessionTimeoutSeconds": {"type": "integer", "minimum": 1, "maximum": 28_800},
        "clientToken": {"type": "string", "minLength": 33, "maxLength": 256},
    },
}
_KEEP = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": _NAME,
        "retentionSeconds": {"type": "integer", "minimum": 60, "maximum": 30 * 86_400},
    },
}
_PAGE = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "maxResults": {"type": "integer", "minimum": 1, "maximum": 100},
        "nextToken": {"type": "string"},
    },
}
_SNAPSHOTS = {
    "type": "object",
    "required": ["snapshots"],
    "properties": {"snapshots": {"type": "array", "items": _SNAPSHOT}, "nextToken": {"type": "string"}},
}


def paths(errors: dict[str, Any]) -> dict[str, Any]:
    """The paths; each operation may answer with `errors`."""

    def operation(
        name: str, summary: str, answered: dict[str, Any], sent: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        described: dict[str, Any] = {
            "operationId": name,
            "summary": summary,
            "responses": {"200": answer("done", answered)} | errors,
        }
        return described if sent is None else described | {"requestBody": body(sent)}

    return {
        "/fumehood/v1/sessions/{id}": {
            "parameters": [SESSION_ID],
            "get": operation("getSession", "Where a session is in its life, why it ended, what it used", _SESSION),
        },
        "/fumehood/v1/sessions/{id}/pause": {
            "parameters": [SESSION_ID],
            "post": operation("pauseSession", "Free its sandbox and keep its state, until a call or resume", _SESSION),
        },
        "/fumehood/v1/sessions/{id}/resume": {
            "parameters": [SESSION_ID],
            "post": operation("resumeSession", "Give it a sandbox again, if it is hibernated", _SESSION),
        },
        "/fumehood/v1/sessions/{id}/snapshot": {
            "parameters": [SESSION_ID],
            "post": operation("createSnapshot", "Keep its state as it is now; it goes on", _SNAPSHOT, _KEEP),
        },
        "/fumehood/v1/sessions/{id}/fork": {
            "parameters": [SESSION_ID],
            "post": operation("forkSession", "A new session with its state as it is now; it goes on", _STARTED, _START),
        },
        "/fumehood/v1/snapshots/list": {
            "post": operation("listSnapshots", "The account's snapshots, newest first", _SNAPSHOTS, _PAGE),
        },
        "/fumehood/v1/snapshots/{id}": {
            "parameters": [_SNAPSHOT_ID],
            "get": operation("getSnapshot", "One snapshot", _SNAPSHOT),
            "delete": operation("deleteSnapshot", "Remove it; sessions that started from it go on", {"type": "object"}),
        },
        "/fumehood/v1/snapshots/{id}/sessions": {
            "parameters": [_SNAPSHOT_ID],
            "post": operation("startFromSnapshot", "A new session that starts from it", _STARTED, _START),
        },
    }
