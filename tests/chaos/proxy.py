"""A faulty way to the object store: `python -m tests.chaos.proxy PORT CONTROL_PORT STORE_PORT`.

Requests pass unchanged, signed Host header and all, until one matches the armed rule for the n-th time. That request
meets the rule's fault, which may be a signal to a process at exactly that moment: a kill point needs no hook in the
product, its requests to the store are its stage boundaries.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import re
import signal
import socket
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

import h11

Fault = Literal[
    "none",  # counts only
    "error",  # the store answers 503 SlowDown and has done nothing
    "delay",  # the request is passed on after `seconds`
    "reset_before",  # the connection is reset, the store has seen nothing
    "reset_after",  # the store has done it, the answer is lost
    "cut",  # the answer ends in the middle of its body
    "half",  # the request's body ends in the middle
    "signal_before",  # the process gets the signal, the request is lost with it
    "signal_after",  # the store has done it, then the process gets the signal
    "signal_hold",  # the process gets the signal; its request is on the way until it is released, then it arrives
]
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>injected</Message></Error>"
_HOLD_AT_MOST_S = 60.0
_MAX_LOGGED = 5_000


@dataclass
class Rule:
    """`key` is searched in the decoded path with its query; matches `nth` to `nth + times - 1` meet the fault."""

    fault: Fault = "none"
    key: str = ""
    method: str = "."
    nth: int = 1
    times: int = 1
    seconds: float = 0.0
    pid: int = 0
    signal: int = 0


@dataclass
class Proxy:
    store_port: int
    rule: Rule = field(default_factory=Rule)
    n_matched: int = 0
    n_fired: int = 0
    log: list[str] = field(default_factory=list)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def control(self, told: dict[str, Any]) -> dict[str, Any]:
        """One word of the harness: arm a rule, release what is held, or just ask."""
        if "arm" in told:
            self.released.set()  # nothing of an earlier rule stays behind
            self.rule, self.n_matched, self.n_fired = Rule(**told["arm"]), 0, 0
            self.log, self.released = [], asyncio.Event()
        if told.get("release"):
            self.released.set()
        return {"matched": self.n_matched, "fired": self.n_fired, "first": self.rule.nth, "log": self.log}

    def fault_of(self, method: str, target: str) -> tuple[Fault, Rule]:
        """Count the request. Returns what befalls it."""
        rule = self.rule
        if not re.fullmatch(rule.method, method) and rule.method != ".":
            return "none", rule
        if not re.search(rule.key, target):
            return "none", rule
        self.n_matched += 1
        if len(self.log) < _MAX_LOGGED:
            self.log.append(f"{method} {target}")
        if rule.fault == "none" or not rule.nth <= self.n_matched < rule.nth + rule.times:
            return "none", rule
        self.n_fired += 1
        return rule.fault, rule

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client connection, request after request."""
        client = h11.Connection(h11.SERVER)
        with suppress(OSError, h11.RemoteProtocolError, h11.LocalProtocolError, asyncio.IncompleteReadError):
            while True:
                request, body = await _whole(client, reader)
                if request is None or not await self.answer(client, writer, request, body):
                    break
                if client.our_state is not h11.DONE or client.their_state is not h11.DONE:
                    break
                client.start_next_cycle()
        writer.close()

    async def answer(
        self, client: h11.Connection, writer: asyncio.StreamWriter, request: h11.Request, body: bytes
    ) -> bool:
        """Pass the request on and answer it, or let its fault happen. False when the connection is done with."""
        fault, rule = self.fault_of(request.method.decode(), unquote(request.target.decode()))
        if fault in ("signal_before", "signal_hold"):
            _signal(rule)
        if fault == "signal_hold":
            with suppress(TimeoutError):
                await asyncio.wait_for(self.released.wait(), _HOLD_AT_MOST_S)
        if fault in ("reset_before", "signal_before"):
            return _reset(writer)
        if fault == "half":
            await self.half(request, body)
            return _reset(writer)
        if fault == "delay":
            await asyncio.sleep(rule.seconds)
        if fault == "error":
            length = (b"Content-Length", str(len(_SLOW_DOWN)).encode())
            response, answer = h11.Response(status_code=503, headers=[length]), _SLOW_DOWN
        else:
            try:
                response, answer = await self.exchange(request, body)
            except (OSError, h11.RemoteProtocolError):
                return _reset(writer)  # the store is away
        if fault == "signal_after":
            _signal(rule)
        if fault == "reset_after" or (fault == "signal_after" and rule.signal == signal.SIGKILL):
            return _reset(writer)
        if request.method == b"HEAD":
            answer = b""
        head = client.send(response)
        if fault == "cut":
            writer.write(head + client.send(h11.Data(data=answer))[: len(answer) // 2])
            await writer.drain()
            return False
        writer.write(head + client.send(h11.Data(data=answer)) + client.send(h11.EndOfMessage()))
        await writer.drain()
        return True

    async def exchange(self, request: h11.Request, body: bytes) -> tuple[h11.Response, bytes]:
        """The store's answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.store_port)
        try:
            store = h11.Connection(h11.CLIENT)
            writer.write(store.send(request) + store.send(h11.Data(data=body)) + store.send(h11.EndOfMessage()))
            await writer.drain()
            response, answer = await _whole(store, reader)
            if not isinstance(response, h11.Response):
                raise ConnectionResetError("the store has said nothing")
            return response, answer
        finally:
            writer.close()

    async def half(self, request: h11.Request, body: bytes) -> None:
        """Send the store half of a request and break off."""
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", self.store_port)
            store = h11.Connection(h11.CLIENT)
            writer.write(store.send(request) + body[: len(body) // 2])
            await writer.drain()
            _reset(writer)


async def _whole(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[Any, bytes]:
    """The next request or response with its body; None at the end of the connection."""
    head, body = None, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(1 << 16))
        elif isinstance(event, h11.Request | h11.Response):
            head = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return head, bytes(body)
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None, b""


def _signal(rule: Rule) -> None:
    with suppress(ProcessLookupError):
        os.kill(rule.pid, rule.signal)


def _reset(writer: asyncio.StreamWriter) -> bool:
    """RST instead of FIN: lingering for zero seconds."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def _main(port: int, control_port: int, store_port: int) -> None:
    proxy = Proxy(store_port)

    async def controlled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while line := await reader.readline():
                writer.write(json.dumps(proxy.control(json.loads(line))).encode() + b"\n")
                await writer.drain()
        writer.close()

    # Resetting a socket that its transport is about to close is no error worth a traceback.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with (
        await asyncio.start_server(proxy.serve, "127.0.0.1", port),
        await asyncio.start_server(controlled, "127.0.0.1", control_port) as control,
    ):
        await control.serve_forever()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the harness
    asyncio.run(_main(*map(int, sys.argv[1:4])))
