"""The door loads what answers when the first guest comes to it, for all that come meanwhile."""

import os
import subprocess
import sys
from pathlib import Path

_MANY_COME_AT_ONCE = """
import asyncio, sys
from pathlib import Path
from fumehood.gateway.embedded import EmbeddedS3
from fumehood.gateway.gateway import Gateway
from fumehood.gateway.role_session import RoleSession
from fumehood.settings import Settings
from tests.unit.gateway.guests import Guest

REQUEST = b"GET /_fumehood/credentials HTTP/1.1\\r\\nhost: 127.0.0.1:4588\\r\\n\\r\\n"

async def main():
    folder = Path(sys.argv[1])
    gateway = Gateway(Settings(data=folder), lambda arn: None, EmbeddedS3(folder), b"key", lambda size, what: None)
    session = RoleSession("session", "000000000000", "arn", "role", "somebody")
    impatient, *guests = [Guest([REQUEST], {"op": "s3"}) for _ in range(21)]
    assert "aiohttp" not in sys.modules
    gave_up = asyncio.ensure_future(gateway.serve(session, impatient))
    serving = [asyncio.ensure_future(gateway.serve(session, guest)) for guest in guests]
    await asyncio.sleep(0)
    gave_up.cancel()
    await asyncio.gather(*serving)
    await gateway.close()
    assert "aiohttp" in sys.modules
    print(gave_up.cancelled(), *(guest.sent.split()[1].decode() for guest in guests))

asyncio.run(main())
"""


def test_all_who_come_before_it_is_loaded_are_answered(tmp_path: Path) -> None:
    """In a process of its own, where nothing has loaded it yet."""
    root = Path(__file__).parents[3]
    finished = subprocess.run(
        [sys.executable, "-c", _MANY_COME_AT_ONCE, str(tmp_path)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1].split() == ["True", *["403"] * 20]
