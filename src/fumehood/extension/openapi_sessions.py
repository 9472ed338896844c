"""The part of the OpenAPI document that is about sessions and snapshots."""

from typing import Any

from fumehood.extension.openapi_parts import SIZES, TIME, answer, body, parameter

SESSION_ID = parameter("id", "a session's id")
"""The parameter of every path that names a session."""
_SNAPSHOT_ID = parameter("id", "a snapshot's id")
_ID = {"type": "string"}
_INTERPRETER = {"type": "string", "description": "the interpreter's id"}
_TEMPLATE = {"type": "string", "description": "name and key of the template, in one"}
_DEADLINE = TIME | {"description": "when the session ends at the latest"}
_SESSION_PROPERTIES = {
    "sessionId": _ID,
    "codeInterpreterIdentifier": _INTERPRETER,
    "name": {"type": ["string", "null"], "description": "as its start gave it"},
    "status": {"enum": ["READY", "TERMINATED"], "description": "as the AWS operations tell it"},
    "state": {
        "enum": ["starting", "ready", "hibernated", "stopping", "terminated"],
        "description": "hibernated: its state is in an image, and the next call gives it a sandbox again",
    },
    "template": _TEMPLATE,
    "isolation": {"type": "string", "description": "as it really is; with its network, while it has a sandbox"},
    "startedFrom": {
        "enum": ["pool", "restore", "cold", "snapshot", None],
        "description": "what its first sandbox was made from: a ready one, the template's warm checkpoint, nothing, or "
        "another session's state; null before it has one",
    },
    "sizes": SIZES | {"required": [*SIZES["properties"]], "description": "what its sandbox may use"},
    "sessionTimeoutSeconds": {"type": "integer", "description": "from its start to its deadline"},
    "createdAt": TIME,
    "updatedAt": TIME,
    "deadlineAt": _DEADLINE,
    "endedAt": {"type": ["string", "null"], "format": "date-time", "description": "null while it is not over"},
    "endReason": {
        "enum": [
            *("stopped", "expired", "out_of_memory", "sandbox_crashed", "start_failed", "host_lost", "quota"),
            *("image_lost", "unresponsive", None),
        ],
        "description": "why it ended, or ends",
    },
    "endDetail": {"type": ["string", "null"], "description": "more of that, where there is more to say"},
    "cpuSeconds": {"type": "number", "description": "processor time of all its sandboxes"},
    "memoryBytes": {"type": "integer", "description": "held now, but for files that the machine can let go of"},
    "diskBytes": {
        "type": "integer",
        "description": "what its disk takes of the machine's now: what was removed counts until it is given back",
    },
    "peak": {
        "type": "object",
        "required": ["memoryBytes"],
        "properties": {"memoryBytes": {"type": "integer", "description": "the most it has held"}},
    },
    "image": {
        "type": ["object", "null"],
        "required": ["sizeBytes"],
        "description": "of a hibernated one",
        "properties": {"sizeBytes": {"type": "integer", "description": "on disk, beside the template's"}},
    },
}
_SESSION = {
    "title": "Session",
    "type": "object",
    "required": [*_SESSION_PROPERTIES],
    "properties": _SESSION_PROPERTIES,
}
_SNAPSHOT_PROPERTIES = {
    "snapshotId": _ID,
    "sessionId": {"type": "string", "description": "the session whose state it is"},
    "codeInterpreterIdentifier": _INTERPRETER,
    "name": {"type": "string", "description": "as it was given, if it was"},
    "template": _TEMPLATE,
    "sizeBytes": {"type": "integer", "description": "on disk, beside the template's"},
    "createdAt": TIME,
    "expiresAt": TIME,
}
_SNAPSHOT = {
    "title": "Snapshot",
    "type": "object",
    "required": [name for name in _SNAPSHOT_PROPERTIES if name != "name"],
    "properties": _SNAPSHOT_PROPERTIES,
}
_STARTED = {
    "title": "Started",
    "type": "object",
    "required": ["sessionId", "codeInterpreterIdentifier", "createdAt", "deadlineAt"],
    "properties": {
        "sessionId": {"type": "string", "description": "the new session"},
        "codeInterpreterIdentifier": _INTERPRETER,
        "createdAt": TIME,
        "deadlineAt": _DEADLINE,
        "snapshotId": {"type": "string", "description": "the snapshot, of a start from one"},
        "forkedFrom": {"type": "string", "description": "the other session, of a fork"},
    },
}
_DELETED = {
    "title": "Deleted",
    "type": "object",
    "required": ["snapshotId"],
    "properties": {"snapshotId": _ID},
}
_NAME = {"type": "string", "minLength": 1, "maxLength": 100, "description": "for people"}
_START = {
    "title": "Start",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": _NAME,
        "sessionTimeoutSeconds": {
            "type": "integer",
            "minimum": 1,
            "maximum": 28_800,
            "description": "the new session's own, from its start; FUMEHOOD_SESSION_TIMEOUT_SECONDS, if not given, "
            "whatever that of the session is whose state it has",
        },
        "clientToken": {
            "type": "string",
            "minLength": 33,
            "maxLength": 256,
            "description": "the same again is the same start, answered once more",
        },
    },
}
_KEEP = {
    "title": "Keep",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "name": _NAME,
        "retentionSeconds": {
            "type": "integer",
            "minimum": 60,
            "maximum": 30 * 86_400,
            "description": "how long it is kept; FUMEHOOD_SNAPSHOT_RETENTION_SECONDS, if not given",
        },
    },
}
_PAGE = {
    "title": "Page",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "maxResults": {"type": "integer", "minimum": 1, "maximum": 100},
        "nextToken": {
            "type": "string",
            "minLength": 1,
            "maxLength": 2048,
            "description": "of the page before",
        },
    },
}
_SNAPSHOTS = {
    "title": "Snapshots",
    "type": "object",
    "required": ["snapshots"],
    "properties": {
        "snapshots": {"type": "array", "items": _SNAPSHOT},
        "nextToken": {"type": "string", "description": "of the next page, if there is one"},
    },
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
            "delete": operation("deleteSnapshot", "Remove it; sessions that started from it go on", _DELETED),
        },
        "/fumehood/v1/snapshots/{id}/sessions": {
            "parameters": [_SNAPSHOT_ID],
            "post": operation("startFromSnapshot", "A new session that starts from it", _STARTED, _START),
        },
    }
