"""`python -m benchmarks._gateway_load <JSON>`: clients on loopback at a steady rate, until a line on stdin.

The line is a number: of how many requests there must be at least. Says `begun` once the first is answered.

Writes one JSON list of `[asked_at_s, answered_at_s, outcome]` (monotonic seconds, which all processes of a machine
share). An outcome is the version that answered, `injected <version>` (an error that the server made on purpose), or
`failed: …`, what went wrong. Nothing is asked twice: what fails once is a failure.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import aiohttp

Asked = tuple[float, float, str]
TIMEOUT_S = 45.0
INJECTED, FAILED = "injected ", "failed: "


async def drive(url: str, key: str, model: str, n_clients: int, rate: float) -> list[Asked]:
    """Each client has one connection and asks in turn, at `rate` requests a second altogether if answers are quick."""
    at_least = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    asked: list[Asked] = []
    pause_s = n_clients / rate

    async def client(number: int) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        headers = {"authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1), headers=headers, timeout=timeout
        ) as session:
            due_s = time.monotonic() + pause_s * number / n_clients
            while not at_least.done() or len(asked) < int(at_least.result() or 0):
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))
                began_s = time.monotonic()
                outcome = await _outcome(session, url, _body(model, number, len(asked)))
                if not asked:
                    print("begun", flush=True)
                asked.append((began_s, time.monotonic(), outcome))
                due_s = max(due_s + pause_s, time.monotonic() - pause_s)

    await asyncio.gather(*(client(number) for number in range(n_clients)))
    return asked


def _body(model: str, client: int, turn: int) -> dict[str, str]:
    """Every second client names a user, one of some hundreds."""
    return {"model": model} if client % 2 else {"model": model, "user": f"user-{turn % 500}"}


async def _outcome(session: aiohttp.ClientSession, url: str, body: dict[str, str]) -> str:
    try:
        async with session.post(url, json=body) as answer:
            text = await answer.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        return f"{FAILED}{type(error).__name__}: {error}"
    if answer.status == 200:
        return str(json.loads(text)["tag"])
    if "injected" in text:
        return f"{INJECTED}{answer.headers['x-tidemill-model']}"
    return f"{FAILED}{answer.status} {text[:100]}"


if __name__ == "__main__":
    print(json.dumps(asyncio.run(drive(**json.loads(sys.argv[1])))))
