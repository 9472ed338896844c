# ruff: noqa: PTH123, SIM115, UP017 - it runs inside, as user code is.
"""Runs inside a sandbox: requests to the S3 door, made by hand and signed with whatever keys are wanted."""

import base64
import datetime
import hashlib
import hmac
import http.client
import json
import os
import re
import socket
import urllib.parse
import urllib.request
import zlib
from types import SimpleNamespace

HOST = "127.0.0.1:4588"
PUT_TWO = b"<Delete><Object><Key>mine/gone</Key></Object><Object><Key>theirs/kept</Key></Object></Delete>"


def keys():
    token = open(os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"]).read()
    request = urllib.request.Request(os.environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"], headers={"Authorization": token})
    found = json.load(urllib.request.urlopen(request, timeout=10))
    return SimpleNamespace(id=found["AccessKeyId"], secret=found["SecretAccessKey"], token=found["Token"])


def raw(data, method="GET"):
    """What the door answers to these bytes: status, and S3's code where there is one."""
    with socket.create_connection(("127.0.0.1", 4588), 20) as connection:
        connection.settimeout(30)
        connection.sendall(data)
        answer = http.client.HTTPResponse(connection, method=method)
        try:
            answer.begin()
        except http.client.HTTPException as error:
            return 0, type(error).__name__
        body = answer.read()
    code = re.search(rb"<Code>([^<]*)", body)
    return answer.status, code[1].decode() if code else body[:60].decode(errors="replace")


def _hmac(key, text):
    return hmac.digest(key, text.encode(), "sha256")


def _signature(k, now, region, service, text):
    key = ("AWS4" + k.secret).encode()
    for part in (now[:8], region, service, "aws4_request"):
        key = _hmac(key, part)
    return key, _hmac(key, text).hex()


def _query(query):
    pairs = [part.partition("=") for part in query.split("&") if part]
    quoted = [
        (
            urllib.parse.quote(urllib.parse.unquote(n), safe="-_.~"),
            urllib.parse.quote(urllib.parse.unquote(v), safe="-_.~"),
        )
        for n, _, v in pairs
    ]
    return "&".join(f"{name}={value}" for name, value in sorted(quoted))


def request(
    method,
    target,
    headers=None,
    body=b"",
    *,
    host=HOST,
    more=b"",
    k=None,
    payload=None,
    region="us-east-1",
    service="s3",
    length=None,
    chunks=None,
    version="HTTP/1.1",
):
    """The bytes of a signed request; `more` are lines added to the head after signing, `chunks` makes the body."""
    k = k or keys()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    path, _, query = target.partition("?")
    given = {
        "host": host,
        "x-amz-date": now,
        "x-amz-security-token": k.token,
        "x-amz-content-sha256": payload or hashlib.sha256(body).hexdigest(),
    } | (headers or {})
    signed = {name: value for name, value in given.items() if name.startswith("x-amz-") or name == "host"}
    names = ";".join(sorted(signed))
    canonical = "\n".join(
        [
            method,
            urllib.parse.quote(urllib.parse.unquote_to_bytes(path), safe="/-_.~"),
            _query(query),
            *(f"{name}:{signed[name]}" for name in sorted(signed)),
            "",
            names,
            given["x-amz-content-sha256"],
        ]
    )
    scope = f"{now[:8]}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key, signature = _signature(k, now, region, service, text)
    if chunks is not None:
        body = chunks(key, now, scope, signature)
    head = f"{method} {target} {version}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in given.items())
    head += (
        f"authorization: AWS4-HMAC-SHA256 Credential={k.id}/{scope}, SignedHeaders={names}, Signature={signature}\r\n"
    )
    if length is None and (body or method in ("PUT", "POST")):
        head += f"content-length: {len(body)}\r\n"
    elif length:
        head += length
    return head.encode("latin-1") + more + b"\r\n" + body


def ask(method, target, *arguments, **named):
    return raw(request(method, target, *arguments, **named), method)


def presigned(method, target, k=None, **changes):
    """The target of a presigned URL."""
    k = k or keys()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    values = {
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
        "X-Amz-Credential": f"{k.id}/{scope}",
        "X-Amz-Date": now,
        "X-Amz-Expires": "60",
        "X-Amz-Security-Token": k.token,
        "X-Amz-SignedHeaders": "host",
    } | changes
    query = "&".join(f"{n}={urllib.parse.quote(v, safe='-_.~')}" for n, v in sorted(values.items()))
    path = urllib.parse.quote(urllib.parse.unquote_to_bytes(target), safe="/-_.~")
    canonical = f"{method}\n{path}\n{query}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return f"{target}?{query}&X-Amz-Signature={_signature(k, now, 'us-east-1', 's3', text)[1]}"


def fetch(method, target, host=HOST, body=b""):
    """A request with no signature but what the target has."""
    length = f"content-length: {len(body)}\r\n" if body else ""
    return raw(f"{method} {target} HTTP/1.1\r\nhost: {host}\r\n{length}\r\n".encode() + body, method)


def chunked(data, forge=0, short=0):
    """A body in signed chunks of 5 bytes; `forge` is the number of the chunk whose signature is another's."""

    def make(key, now, scope, seed):
        body, previous = b"", seed
        pieces = [data[at : at + 5] for at in range(0, len(data), 5)] + [b""]
        for number, piece in enumerate(pieces, 1):
            text = "\n".join(
                [
                    "AWS4-HMAC-SHA256-PAYLOAD",
                    now,
                    scope,
                    previous,
                    hashlib.sha256(b"").hexdigest(),
                    hashlib.sha256(piece).hexdigest(),
                ]
            )
            previous = _hmac(key, text).hex()
            told = "0" * 64 if number == forge else previous
            body += f"{len(piece):x};chunk-signature={told}\r\n".encode() + piece + b"\r\n"
        return body[: len(body) - short]

    return make


def put_chunked(target, data, told=None, **how):
    headers = {
        "x-amz-decoded-content-length": str(len(data) if told is None else told),
        "content-encoding": "aws-chunked",
    }
    return ask("PUT", target, headers, payload="STREAMING-AWS4-HMAC-SHA256-PAYLOAD", chunks=chunked(data, **how))


def put_trailer(target, data, checksum=None, name="x-amz-checksum-crc32"):
    value = checksum or base64.b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    headers = {"x-amz-decoded-content-length": str(len(data)), "content-encoding": "aws-chunked", "x-amz-trailer": name}
    body = f"{len(data):x}\r\n".encode() + data + f"\r\n0\r\n{name}:{value}\r\n\r\n".encode()
    return ask("PUT", target, headers, body, payload="STREAMING-UNSIGNED-PAYLOAD-TRAILER")
