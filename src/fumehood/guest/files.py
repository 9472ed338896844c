"""File tools, the agent's side: a child does each operation as the user; its bytes are carried to and from the host."""

import asyncio
import json
import os

from fumehood.guest.file_operations import COMMIT, COPY_BYTES
from fumehood.guest.processes import Process
from fumehood.guest.spares import Child
from fumehood.guest.wire import Stream

_ANSWER_MAX = 512 * 1024


async def serve_file_operation(stream: Stream, child: Child) -> None:
    """Have `child` do what the stream's head asks, and carry bytes between it and `stream`."""
    os.close(child.errors)
    body = await _writer(child.body)
    answer = await _reader(child.output)
    await child.order("file", stream.head)
    feeding = asyncio.ensure_future(_feed(stream, body))
    try:
        await _pass_answer(stream, answer, child.process)
        await child.process.wait()
        # A refusal comes before the request has ended; who sends it must not be left waiting for credit.
        await feeding
    finally:
        await _end_child(child.process, feeding, body)


async def _feed(stream: Stream, body: asyncio.StreamWriter) -> None:
    """The request's bytes, to the child. A child that wants no more of them is no error: it answers why."""
    wanted = True
    try:
        while (piece := await stream.receive()) is not None:
            if not wanted:
                continue
            try:
                body.write(piece)
                await body.drain()
            except ConnectionError:
                wanted = False
        if wanted:
            body.write(COMMIT)
    finally:
        # Also where the request is broken off: its end tells the child to undo.
        body.close()


async def _pass_answer(stream: Stream, answer: asyncio.StreamReader, child: Process) -> None:
    try:
        size = int.from_bytes(await answer.readexactly(4), "big")
        if size > _ANSWER_MAX:
            stream.reset("too-large", "the answer is too large; name fewer paths at once")
            return
        head = json.loads(await answer.readexactly(size))
    except (asyncio.IncompleteReadError, ValueError):
        if child.shortage is None:
            stream.reset("failed", "the file operation ended without an answer")
        else:
            stream.reset("resources", "memory ran out in the sandbox, and the file operation was ended")
        return
    stream.send_head(head)
    while data := await answer.read(COPY_BYTES):
        await stream.send(data)
    stream.end()


async def _end_child(child: Process, feeding: "asyncio.Future[None]", body: asyncio.StreamWriter) -> None:
    feeding.cancel()
    # One that has closed already, with nothing left to write, cannot be aborted any more.
    if body.transport.get_write_buffer_size():
        body.transport.abort()
    else:
        body.close()
    if not child.ended:
        # The end of its input lets it take its temporary files away; only then is it killed.
        try:
            await asyncio.wait_for(child.wait(), 2)
        except TimeoutError:
            child.kill_tree()


async def _reader(descriptor: int) -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=4 * COPY_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0))
    return reader


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.streams.FlowControlMixin(loop=loop), os.fdopen(descriptor, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)
