"""Call what AWS does not have: python docs/call_extension.py GET /fumehood/v1/pool

In a shell with the variables of `fumehood env`, and with boto3 or botocore installed. A body is the third argument.
"""

import hashlib
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.session import Session


def call(method: str, path: str, body: bytes = b"") -> bytes:
    """The answer's body. urllib.error.HTTPError, whose body says what is wrong, if the call is refused."""
    url = os.environ["AWS_ENDPOINT_URL_BEDROCK_AGENTCORE"] + urllib.parse.quote(path, safe="/?&=%")
    # The body's hash has to be among what is signed.
    headers = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    if body:
        headers["content-type"] = "application/json"
    request = AWSRequest(method, url, headers=headers, data=body)
    SigV4Auth(Session().get_credentials(), "bedrock-agentcore", os.environ["AWS_REGION"]).add_auth(request)
    signed = urllib.request.Request(url, body or None, dict(request.headers), method=method)
    with urllib.request.urlopen(signed, timeout=900) as answer:
        return answer.read()


if __name__ == "__main__":
    try:
        print(call(sys.argv[1], sys.argv[2], *(argument.encode() for argument in sys.argv[3:4])).decode())
    except urllib.error.HTTPError as error:
        sys.exit(f"{error}: {error.read().decode()}")
