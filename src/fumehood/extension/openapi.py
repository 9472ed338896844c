"""The OpenAPI document of what AWS does not have."""

from importlib.metadata import version
from typing import Any

_SESSION_ID = {
    "name": "id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "a session's id",
}
_PATH = {
    "name": "path",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "a file below the session's working folder; may hold slashes",
}
_ERROR_NAMES = {
    "400": "ValidationException: the path leaves the working folder, or is not that of a file",
    "403": "AccessDeniedException, or the signature is missing or wrong",
    "404": "ResourceNotFoundException: no such session or file, or the session is over; the message says which",
}
_ERROR = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["message"],
                "properties": {"message": {"type": "string"}},
            }
        }
    },
    "headers": {"x-amzn-errortype": {"schema": {"type": "string"}}},
}
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def document() -> dict[str, Any]:
    """The document, as served at /fumehood/v1/openapi.json."""
    errors = {status: {"description": told} | _ERROR for status, told in _ERROR_NAMES.items()}
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
                    "responses": {"200": {"description": "it could"}, "503": {"description": "it could not"}},
                }
            },
            "/fumehood/v1/sessions/{id}/files/{path}": {
                "parameters": [_SESSION_ID, _PATH],
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
        },
        "components": {
            "securitySchemes": {"sigv4": {"type": "apiKey", "in": "header", "name": "Authorization"}},
        },
        "security": [{"sigv4": []}],
    }
