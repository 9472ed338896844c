"""readFiles, writeFiles, listFiles, removeFiles."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fumehood.errors import InvalidRequestError
from fumehood.sandbox.contract import GuestReply, GuestRequest
from fumehood.tools.arguments import required_paths, utf8
from fumehood.tools.guest import FILES_TIMEOUT_SECONDS, Guest
from fumehood.tools.results import TEXT_BYTES_MAX, Result, encoded_size, error_result, text_block
from fumehood.tools.untrusted import integer, items, members, text

_READ_BYTES_MAX = 100_000_000
"""What one answer may carry in all: the service's own limit."""
_LIST_BYTES_MAX = 32 * 1024 * 1024
_HEAD_BYTES_MAX = 900_000
_BLOCK_BYTES = 2_048
_OTHER_WAYS = "Larger files: GET /fumehood/v1/sessions/{id}/files/{path}, or read them in parts with code"


def check_paths(arguments: dict[str, Any]) -> None:
    """InvalidRequestError if the arguments are not readFiles' or removeFiles'."""
    paths = required_paths(arguments, "the tool")
    if len(json.dumps(paths)) > _HEAD_BYTES_MAX:
        raise InvalidRequestError.of_field("arguments.paths", f"at most {_HEAD_BYTES_MAX} bytes of paths in one call")


def check_list(arguments: dict[str, Any]) -> None:
    """InvalidRequestError if the arguments are not listFiles'."""
    path = _listed_path(arguments)
    utf8(path, "arguments.directoryPath")
    if len(path) > _HEAD_BYTES_MAX // 8:
        raise InvalidRequestError.of_field("arguments.directoryPath", f"at most {_HEAD_BYTES_MAX // 8} characters")


def check_content(arguments: dict[str, Any]) -> None:
    """InvalidRequestError if the arguments are not writeFiles'."""
    content = arguments.get("content")
    if not content:
        raise InvalidRequestError.of_field(
            "arguments.content", "writeFiles needs at least one file: path and text or blob"
        )
    for index, block in enumerate(content):
        field = f"arguments.content.{index}"
        utf8(block["path"], f"{field}.path")
        if (block.get("text") is None) == (block.get("blob") is None):
            raise InvalidRequestError.of_field(field, "needs either text or blob")
        if block.get("text") is not None:
            utf8(block["text"], f"{field}.text")
    if len(json.dumps([block["path"] for block in content])) + 24 * len(content) > _HEAD_BYTES_MAX:
        raise InvalidRequestError.of_field("arguments.content", f"at most {_HEAD_BYTES_MAX} bytes of paths in one call")


async def write_files(arguments: dict[str, Any], guest: Guest) -> Result:
    """Write files, all of them or none."""
    blocks = arguments["content"]
    contents = [block["blob"] if block.get("blob") is not None else block["text"].encode() for block in blocks]
    files = [{"path": block["path"], "size": len(data)} for block, data in zip(blocks, contents, strict=True)]
    reply = await guest.call(GuestRequest("files.write", {"files": files}, tuple(contents)), FILES_TIMEOUT_SECONDS, 0)
    if "error" in reply.head:
        return error_result(f"Error writing files, none was written: {text(reply.head['error'])}")
    return {"content": [text_block(f"Successfully wrote all {len(files)} files")], "isError": False}


async def remove_files(arguments: dict[str, Any], guest: Guest) -> Result:
    """Remove files and folders."""
    paths = required_paths(arguments, "removeFiles")
    reply = await guest.call(GuestRequest("files.remove", {"paths": paths}), FILES_TIMEOUT_SECONDS, 0)
    errors = items(reply.head.get("errors"))
    if "error" in reply.head:
        errors = [*errors, reply.head["error"]]
    if errors:
        removed = len(items(reply.head.get("removed")))
        lines = [f"Error removing files: {removed} of {len(paths)} were removed", *map(text, errors)]
        return error_result("\n".join(lines))
    return {"content": [text_block(f"Successfully removed all {len(paths)} files")], "isError": False}


def _listed_path(arguments: dict[str, Any]) -> str:
    """Both names are in use: the documentation says directoryPath, some clients send path."""
    path = arguments.get("directoryPath")
    return (path if path is not None else arguments.get("path")) or ""


async def list_files(arguments: dict[str, Any], guest: Guest) -> Result:
    """The entries of a folder, one level deep."""
    request = GuestRequest("files.list", {"path": _listed_path(arguments)})
    reply = await guest.call(request, FILES_TIMEOUT_SECONDS, _LIST_BYTES_MAX)
    if "error" in reply.head:
        return error_result(f"Error listing files: {text(reply.head['error'])}")
    content = [_link(members(entry)) for entry in _entries(reply)]
    total = integer(reply.head.get("total")) or 0
    if total > len(content):
        content.append(text_block(f"{total - len(content)} more entries are not listed; list them with a command"))
    return {"content": content, "isError": False}


def _entries(reply: GuestReply) -> list[Any]:
    try:
        return items(json.loads(reply.body))
    except (ValueError, RecursionError):
        return []


def _link(entry: Mapping[str, Any]) -> dict[str, Any]:
    path = text(entry.get("path"))
    is_folder = entry.get("folder") is True
    link: dict[str, Any] = {
        "type": "resource_link",
        "uri": f"file:///{path}",
        "name": path.rpartition("/")[2],
        "description": "Directory" if is_folder else "File",
    }
    if isinstance(entry.get("mime_type"), str):
        link["mimeType"] = entry["mime_type"]
    size = integer(entry.get("size"))
    if size is not None and not is_folder:
        link["size"] = size
    return link


async def read_files(arguments: dict[str, Any], guest: Guest) -> AsyncIterator[Result]:
    """Whole files, as text where they are text. More than one event only where one could not carry them."""
    paths = required_paths(arguments, "readFiles")
    request = GuestRequest("files.read", {"paths": paths, "limit_bytes": _READ_BYTES_MAX})
    reply = await guest.call(request, FILES_TIMEOUT_SECONDS, _READ_BYTES_MAX)
    if "error" in reply.head:
        yield error_result(f"Error reading files: {text(reply.head['error'])}")
        return
    content: list[dict[str, Any]] = []
    carried, failed = 0, False
    for block in _file_blocks(reply):
        size = _block_size(block)
        if size > TEXT_BYTES_MAX:
            block = text_block(_too_large(block["resource"]["uri"].removeprefix("file:///"), _file_size(block)))
            size = _BLOCK_BYTES
        failed = failed or block["type"] == "text"
        if content and carried + size > TEXT_BYTES_MAX:
            yield {"content": content, "isError": failed}
            content, carried = [], 0
        content.append(block)
        carried += size
    yield {"content": content, "isError": failed}


def _file_blocks(reply: GuestReply) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    at = 0
    for file in map(members, items(reply.head.get("files"))):
        path, size = text(file.get("path")), max(integer(file.get("size")) or 0, 0)
        if "error" in file:
            blocks.append(text_block(f"Error reading file: {text(file['error'])}"))
        elif file.get("too_large") is True:
            blocks.append(text_block(_too_large(path, size)))
        elif size > len(reply.body) - at:
            at = len(reply.body)
            blocks.append(text_block(f"Error reading file: {path}: it became shorter while it was read"))
        else:
            blocks.append(_resource(path, reply.body[at : at + size], file.get("mime_type")))
            at += size
    return blocks


def _too_large(path: str, size: int) -> str:
    limit = f"an answer carries {TEXT_BYTES_MAX} as encoded: text as JSON, all else in base64"
    return f"Error reading file: {path}: {size} bytes are too many; {limit}. {_OTHER_WAYS}"


def _file_size(block: dict[str, Any]) -> int:
    resource = block["resource"]
    return len(resource["text"].encode()) if resource["type"] == "text" else len(resource["blob"])


def _resource(path: str, data: bytes, mime_type: object) -> dict[str, Any]:
    mime = mime_type if isinstance(mime_type, str) else None
    uri = f"file:///{path}"
    try:
        content = data.decode() if b"\0" not in data else None
    except UnicodeDecodeError:
        content = None
    if content is None:
        resource = {"type": "blob", "uri": uri, "mimeType": mime or "application/octet-stream", "blob": data}
    else:
        resource = {"type": "text", "uri": uri, "mimeType": mime or "text/plain", "text": content}
    return {"type": "resource", "resource": resource}


def _block_size(block: dict[str, Any]) -> int:
    if block["type"] == "text":
        return _BLOCK_BYTES + encoded_size(block["text"])
    resource = block["resource"]
    content = encoded_size(resource["text"]) if resource["type"] == "text" else (len(resource["blob"]) + 2) // 3 * 4
    return _BLOCK_BYTES + content + encoded_size(resource["uri"])
