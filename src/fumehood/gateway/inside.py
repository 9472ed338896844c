"""What is put into a sandbox that has a door to S3, so that clients inside find it with no configuration."""

from collections.abc import Mapping

PORT = 4588
CREDENTIALS_PATH = b"/_fumehood/credentials"
"""No bucket can have this name."""
HOSTS = frozenset({f"127.0.0.1:{PORT}".encode(), f"localhost:{PORT}".encode()})
AGENT_ARGUMENTS = ("--s3-port", str(PORT))
"""Have the agent listen there, and put the two files below `/dev/fumehood` that the environment names."""


def environment(region: str) -> Mapping[str, str]:
    """What user code finds in its environment; no secret is in it."""
    url = f"http://127.0.0.1:{PORT}"
    return {
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_ENDPOINT_URL_S3": url,
        # For clients that know only the general one: polars and others on object_store, which take it for S3's.
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": url + CREDENTIALS_PATH.decode(),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/dev/fumehood/token",
        "AWS_CONFIG_FILE": "/dev/fumehood/aws-config",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
