"""What user code finds in its environment in a sandbox that trusts certificates of the session's own."""

from collections.abc import Mapping

_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
"""All that the sandbox trusts; the agent puts the session's own certificates into it before any user code runs."""
_OWN = "/etc/ssl/certs/fumehood-session.pem"
"""The session's own alone, for runtimes that have others built in."""

ENVIRONMENT: Mapping[str, str] = {
    "SSL_CERT_FILE": _BUNDLE,
    "REQUESTS_CA_BUNDLE": _BUNDLE,
    "CURL_CA_BUNDLE": _BUNDLE,
    "GIT_SSL_CAINFO": _BUNDLE,
    "PIP_CERT": _BUNDLE,
    "AWS_CA_BUNDLE": _BUNDLE,
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": _BUNDLE,
    "NODE_EXTRA_CA_CERTS": _OWN,
    "DENO_CERT": _OWN,
}
