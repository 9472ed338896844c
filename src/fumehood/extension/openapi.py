"""The OpenAPI document of what AWS does not have."""

from importlib.metadata import version
from typing import Any

from fumehood.extension import openapi_sessions
from fumehood.extension.openapi_parts import COUNT, SIZES, TIME, answer, body, parameter

_PATH = parameter("path", "a file below the session's working folder; may hold slashes")
_INTERPRETER_ID = parameter("codeInterpreterId", "a code interpreter's id, or its ARN with its slash percent-encoded")
_ISOLATION = {"type": "string", "description": "that of sandboxes without a network"}
_HEALTHY = {
    "title": "Healthy",
    "type": "object",
    "required": ["status", "isolation"],
    "properties": {"status": {"const": "Healthy"}, "isolation": _ISOLATION},
}
_UNHEALTHY = {
    "title": "Unhealthy",
    "type": "object",
    "required": ["status", "isolation", "reason"],
    "properties": {
        "status": {"const": "Unhealthy"},
        "isolation": _ISOLATION,
        "reason": {"enum": ["database", "stopping"], "description": "what keeps sessions from starting"},
    },
}
_TEMPLATE = {
    "title": "Template",
    "type": "object",
    "required": ["name", "key", "sizeBytes", "createdAt", "languages", "isDefault"],
    "properties": {
        "name": {"type": "string", "description": "by which interpreters choose it"},
        "key": {"type": "string", "description": "changes with everything the template is made of"},
        "sizeBytes": {"type": "integer"},
        "createdAt": TIME,
        "languages": {
            "type": "array",
            "items": {"enum": ["python", "javascript", "typescript"]},
            "description": "what executeCode runs in it",
        },
        "isDefault": {"type": "boolean", "description": "whether interpreters that choose none use it"},
    },
}
_CHOICE = {
    "title": "Choice",
    "type": "object",
    "required": ["template", "isDefault"],
    "properties": {
        "template": {"type": "string", "description": "a template's name"},
        "isDefault": {"type": "boolean", "description": "true if the interpreter chose none: it is the server's own"},
    },
}
_POOL = {
    "title": "Pool",
    "type": "object",
    "required": ["template", "networkMode", "sizes", "ready", "wanted", "hits", "misses", "blanks"],
    "properties": {
        "template": {"type": "string", "description": "name and key of what its sandboxes start from"},
        "networkMode": {"type": "string", "enum": ["SANDBOX", "PUBLIC", "VPC"]},
        "sizes": SIZES | {"required": [*SIZES["properties"]]},
        "ready": COUNT | {"description": "sandboxes that wait for a start"},
        "wanted": COUNT | {"description": "as recent starts have it"},
        "hits": COUNT | {"description": "starts since the server's own that found one ready"},
        "misses": COUNT | {"description": "those that found none"},
        "blanks": {
            "type": "object",
            "description": "sandboxes that are made but have no state yet",
            "required": ["ready", "wanted", "hits", "misses"],
            "properties": {
                "ready": COUNT,
                "wanted": COUNT,
                "hits": COUNT | {"description": "restores, of starts and of wakes, that found one"},
                "misses": COUNT | {"description": "those that found none"},
            },
        },
    },
}
_POOLS = {
    "title": "Pools",
    "type": "object",
    "required": ["pools", "memory"],
    "properties": {
        "pools": {"type": "array", "items": _POOL},
        "memory": {
            "type": "object",
            "required": ["usedBytes", "totalBytes"],
            "properties": {"usedBytes": COUNT, "totalBytes": COUNT},
            "description": "what all sandboxes hold of the memory that there is for them",
        },
    },
}
_FILE_ERRORS = {
    "400": "ValidationException: the path leaves the working folder, or is not that of a file",
    "403": "AccessDeniedException, or the signature is missing or wrong",
    "404": "ResourceNotFoundException: no such session or file, or the session is over; the message says which",
}
_SESSION_ERRORS = {
    "400": "ValidationException: a member of the body is wrong; the message names it",
    "402": "ServiceQuotaExceededException: the account has as many sessions or snapshots as it may",
    "403": "AccessDeniedException, or the signature is missing or wrong",
    "404": "ResourceNotFoundException: the account has no such session or snapshot, or it is over; the message says",
    "409": "ConflictException: the session is in use, or its state cannot be kept or used",
    "429": "ThrottlingException: this machine has no room for another sandbox now",
}
_TEMPLATE_ERRORS = {
    "400": "ValidationException: there is no such template; the message says which there are",
    "403": "AccessDeniedException, as for the system interpreter; or the signature is missing or wrong",
    "404": "ResourceNotFoundException: no such code interpreter",
}
_ERROR = {"title": "Error", "type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}}
_DENIED = "AccessDeniedException, or the signature is missing or wrong"
_TEMPLATES = {
    "title": "Templates",
    "type": "object",
    "required": ["templates"],
    "properties": {"templates": {"type": "array", "items": _TEMPLATE}},
}
_PUT_CHOICE = {
    "title": "Choose",
    "type": "object",
    "required": ["template"],
    "additionalProperties": False,
    "properties": {
        "template": {"type": "string", "minLength": 1, "maxLength": 256, "description": "a template's name"}
    },
}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def document() -> dict[str, Any]:
    """The document, as served at /fumehood/v1/openapi.json."""
    errors, template_errors = _errors(_FILE_ERRORS), _errors(_TEMPLATE_ERRORS)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fumehood",
            "version": version("fumehood"),
            "description": "What fumehood has beyond the AgentCore API. Requests are signed as that API's are "
            "(Signature Version 4, service bedrock-agentcore); one with a body says its SHA-256, or UNSIGNED-PAYLOAD, "
            "in x-amz-content-sha256.",
        },
        "paths": {
            "/ping": {
                "get": {
                    "operationId": "ping",
                    "summary": "Whether a session could start now",
                    "security": [],
                    "description": "It says nothing of an account's quotas, nor of the machine's room: what is lacking "
                    "of these is told to whoever starts a session. It answers within two seconds.",
                    "responses": {"200": answer("it could", _HEALTHY), "503": answer("it could not", _UNHEALTHY)},
                }
            },
            "/fumehood/v1/sessions/{id}/files/{path}": {
                "parameters": [openapi_sessions.SESSION_ID, _PATH],
                "get": {
                    "operationId": "getFile",
                    "summary": "A whole file, of any size",
                    "responses": {"200": {"description": "the file", "content": _BYTES}} | errors,
                },
                "put": {
                    "operationId": "putFile",
                    "summary": "Write a whole file, in place only when all of it has come and is what was signed",
                    "requestBody": {"required": True, "content": _BYTES},
                    "responses": {"204": {"description": "written"}} | errors,
                },
            },
            **openapi_sessions.paths(_errors(_SESSION_ERRORS)),
            "/fumehood/v1/templates": {
                "get": {
                    "operationId": "listTemplates",
                    "summary": "The templates of this machine that sessions can start from, by name",
                    "responses": {"200": answer("the templates", _TEMPLATES)} | _errors({"403": _DENIED}),
                }
            },
            "/fumehood/v1/pool": {
                "get": {
                    "operationId": "getPool",
                    "summary": "The sandboxes that are ready before anybody asks, and the memory that all hold",
                    "responses": {"200": answer("the pools", _POOLS)} | _errors({"403": _DENIED}),
                }
            },
            "/fumehood/v1/interpreters/{codeInterpreterId}/template": {
                "parameters": [_INTERPRETER_ID],
                "get": {
                    "operationId": "getInterpreterTemplate",
                    "summary": "The template that the interpreter's sessions start from",
                    "responses": {"200": answer("the choice", _CHOICE)} | template_errors,
                },
                "put": {
                    "operationId": "putInterpreterTemplate",
                    "summary": "Choose it, for sessions that start from now on; the same as the tag fumehood:template, "
                    "which UntagResource takes away",
                    "requestBody": {"required": True} | body(_PUT_CHOICE),
                    "responses": {"200": answer("the choice", _CHOICE)} | template_errors,
                },
            },
        },
        "components": {
            "securitySchemes": {"sigv4": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
        "security": [{"sigv4": []}],
    }


def _errors(told: dict[str, str]) -> dict[str, Any]:
    kind = {"headers": {"x-amzn-errortype": {"schema": {"type": "string"}}}}
    return {status: answer(text, _ERROR) | kind for status, text in told.items()}
