"""Which network modes interpreters can have on this machine, tried in a process that takes with it what that needs."""

import asyncio
import json
import sys
from dataclasses import asdict

from fumehood.sandbox import machine
from fumehood.sandbox.machine import Check
from fumehood.settings import Settings

_SECONDS = 60.0


async def network_modes(subnets: int) -> str:
    """In words, where the operator declares so many `subnets`. Takes a second or two."""
    return told(await _tried(), subnets)


def told(trial: Check, subnets: int) -> str:
    """As `network_modes`; `trial` is whether a network can be made."""
    if not trial.ok:
        return "SANDBOX only: `fumehood doctor` says why"
    if subnets == 0:
        return "SANDBOX, PUBLIC (no subnet is declared for VPC)"
    return f"SANDBOX, PUBLIC, VPC with {subnets} {'subnet' if subnets == 1 else 'subnets'}"


async def _tried() -> Check:
    # In the server it would take 10 MiB for good, which one without networks does not need.
    process = await asyncio.create_subprocess_exec(
        *("nice", sys.executable, "-m", __name__),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_SECONDS):
            output, _ = await process.communicate()
        return Check(**json.loads(output))
    except (TimeoutError, ValueError):
        return Check("network", False, "the trial of a network was not done")
    finally:
        if process.returncode is None:
            process.kill()


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(machine.check_network(Settings())))))
