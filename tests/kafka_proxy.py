"""A proxy between Kafka clients and one broker that does to single requests what a network can do to them.

It knows Kafka's framing, the header of a request, and whose transaction a request belongs to; what to do with a
request is decided by a function of the test. Clients that come once come back: the broker's address in an answer
is replaced by the proxy's.

Invariant: on one connection everything passes in order until a message is lost; from then on nothing passes, as
with TCP: the connection is closed, or it is silent. Every fault is on record.
"""

import asyncio
import struct
import threading
from asyncio import IncompleteReadError, StreamReader, StreamWriter
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final, NamedTuple, Self

LATE_WITHIN_S: Final = 10.0
"""How long a request that was kept back may take at the broker."""

CONCURRENT_TRANSACTIONS: Final = 51
"""The broker's error code while it is still writing the end of a transaction."""


class Api(IntEnum):
    """Kafka's numbers of the requests that matter here."""

    PRODUCE = 0
    METADATA = 3
    FIND_COORDINATOR = 10
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    END_TXN = 26
    DESCRIBE_CLUSTER = 60


_TELL_ADDRESSES: Final = (Api.METADATA, Api.FIND_COORDINATOR, Api.DESCRIBE_CLUSTER)

# The requests whose first field is a transactional id, each with the version from which its strings are compact
# and its header ends with tagged fields.
_COMPACT_FROM: Final = {Api.PRODUCE: 9, Api.INIT_PRODUCER_ID: 2, Api.ADD_PARTITIONS_TO_TXN: 3, Api.END_TXN: 3}


class Request(NamedTuple):
    """What the proxy reads of a request. `number` counts, from 0, those of the same kind and transactional id."""

    api: int
    version: int
    correlation: int
    client_id: str | None
    transactional_id: str | None
    number: int


class At(NamedTuple):
    """A moment: when the proxy is about to pass on a request of the same transactional id, or the answer to one.

    Counted from when the moment was named; `skip` of them are let go by.
    """

    api: int
    answer: bool = False
    skip: int = 0


class Fault(NamedTuple):
    """What happens to a request: whether the broker gets it now, and whether the client gets the answer.

    A client without an answer loses its connection, or with `silent` only everything on it. `again` is when the
    broker gets a copy of the request, on a connection of its own; it is answered before that moment goes on.
    """

    arrives: bool = True
    answered: bool = True
    again: At | None = None
    silent: bool = False


PASS: Final = Fault()
LOST: Final = Fault(arrives=False, answered=False)
ANSWER_LOST: Final = Fault(answered=False)


def delayed(until: At) -> Fault:
    """The broker gets the request only at that moment; the client has lost its connection by then."""
    return Fault(arrives=False, answered=False, again=until)


def doubled(until: At) -> Fault:
    """The broker gets the request when it comes, and once more at that moment."""
    return Fault(again=until)


class Late(NamedTuple):
    """A copy that the broker got, the request at whose moment that was, and the answer (none: it hung up)."""

    request: Request
    moment: Request | None
    answer: bytes

    @property
    def error(self) -> int:
        """The broker's error code; for EndTxn and InitProducerId, where it stands at one place."""
        assert self.request.api in (Api.END_TXN, Api.INIT_PRODUCER_ID)
        # The correlation id, tagged fields (none), the throttle time.
        at = 8 + (self.request.version >= _COMPACT_FROM[Api(self.request.api)])
        (code,) = struct.unpack_from(">h", self.answer, at)
        return int(code)


class _Kept:
    """A copy that waits for its moment."""

    def __init__(self, request: Request, frame: bytes, until: At) -> None:
        self.request = request
        self.frame = frame
        self.until = until
        self.skip = until.skip


class KafkaProxy:
    """Listens where `servers` says, from entering to leaving the context.

    Args:
        servers: HOST:PORT of the one broker, as it advertises itself; the host is this machine.
        faults: asked for every request, in the proxy's thread; may be exchanged at any time.
    """

    def __init__(self, servers: str, faults: Callable[[Request], Fault] = lambda _: PASS) -> None:
        self.faults = faults
        self.done: list[tuple[Request, Fault]] = []
        self.late: list[Late] = []
        host, _, port = servers.rpartition(":")
        self._host, self._broker_port = host, int(port)
        self._port = 0
        self._numbers: Counter[tuple[int, str | None]] = Counter()
        self._kept: list[_Kept] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble: list[BaseException] = []
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kafka-proxy")

    @property
    def servers(self) -> str:
        """HOST:PORT for clients."""
        return f"{self._host}:{self._port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self._listening.wait()
        if self._trouble:
            self._thread.join()
            raise self._trouble[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        if self._trouble:
            raise self._trouble[0]

    def deliver_kept(self) -> None:
        """Give the broker all that still waits for its moment."""

        async def deliver() -> None:
            kept, self._kept = self._kept, []
            for each in kept:
                await self._deliver(each, None)

        asyncio.run_coroutine_threadsafe(deliver(), self._loop).result()

    # --- the proxy's thread --------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._listen())
        except BaseException as error:  # noqa: BLE001 - raised where the proxy is used
            self._trouble.append(error)
        finally:
            self._listening.set()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._accept, self._host, 0)
        self._port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._over.wait()
        server.close()
        await _cancel(self._tasks)
        await server.wait_closed()

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._trouble.append(error)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection of a client, until either side or a fault ends it."""
        writers = [writer]
        pumps: list[asyncio.Task[bool]] = []
        try:
            with suppress(ConnectionError, IncompleteReadError):
                from_broker, to_broker = await asyncio.open_connection(self._host, self._broker_port)
                writers.append(to_broker)
                sent: deque[tuple[Request, Fault]] = deque()
                pumps = [
                    self._loop.create_task(self._pass_requests(reader, to_broker, sent)),
                    self._loop.create_task(self._pass_answers(from_broker, writer, sent)),
                ]
                ended, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
                silent = any([task.result() for task in ended])  # noqa: C419 - each is asked, for its exception
                await _cancel(pumps)
                while silent and await reader.read(65536):
                    pass
        finally:
            await _cancel(pumps)
            await _close(*writers)

    async def _pass_requests(
        self, reader: StreamReader, to_broker: StreamWriter, sent: deque[tuple[Request, Fault]]
    ) -> bool:
        """Pass on what a client asks until a fault ends it; whether silently."""
        while True:
            frame = await _read_frame(reader)
            request = self._parsed(frame)
            await self._moment(request, answer=False)
            fault = self.faults(request)
            if fault != PASS:
                self.done.append((request, fault))
            if fault.again is not None:
                self._kept.append(_Kept(request, frame, fault.again))
            if not fault.arrives:
                return fault.silent
            sent.append((request, fault))
            _write_frame(to_broker, frame)
            await to_broker.drain()

    async def _pass_answers(
        self, from_broker: StreamReader, writer: StreamWriter, sent: deque[tuple[Request, Fault]]
    ) -> bool:
        """Pass on what the broker answers, in turn; otherwise as `_pass_requests`."""
        while True:
            frame = await _read_frame(from_broker)
            request, fault = sent.popleft()
            assert struct.unpack_from(">i", frame) == (request.correlation,), "the broker's answers are out of turn"
            await self._moment(request, answer=True)
            if not fault.answered:
                return fault.silent
            _write_frame(writer, self._with_own_address(frame) if request.api in _TELL_ADDRESSES else frame)
            await writer.drain()

    def _parsed(self, frame: bytes) -> Request:
        api, version, correlation, length = struct.unpack_from(">hhih", frame)
        at = 10 + max(0, length)
        client_id = frame[10:at].decode() if length >= 0 else None
        transactional_id = None
        if api in _COMPACT_FROM:
            if version >= _COMPACT_FROM[api]:
                assert frame[at] == 0, "nobody sends tagged fields in the header"
                # A length of more than 126 would take two bytes.
                length, at = frame[at + 1] - 1, at + 2
            else:
                (length,), at = struct.unpack_from(">h", frame, at), at + 2
            if length >= 0:
                transactional_id = frame[at : at + length].decode()
        number = self._numbers[api, transactional_id]
        self._numbers[api, transactional_id] += 1
        return Request(api, version, correlation, client_id, transactional_id, number)

    def _with_own_address(self, frame: bytes) -> bytes:
        # In every version of these answers the port, four bytes, comes after the host.
        host = self._host.encode()
        return frame.replace(
            host + struct.pack(">i", self._broker_port),
            host + struct.pack(">i", self._port),
        )

    async def _moment(self, request: Request, *, answer: bool) -> None:
        """Deliver the copies whose moment this is."""
        due = []
        for kept in self._kept:
            if kept.request.transactional_id == request.transactional_id and kept.until[:2] == (request.api, answer):
                if kept.skip == 0:
                    due.append(kept)
                kept.skip -= 1
        for kept in due:
            self._kept.remove(kept)
            await self._deliver(kept, request)

    async def _deliver(self, kept: _Kept, moment: Request | None) -> None:
        """Give the broker a copy, and wait for all that it does with it.

        It answers an EndTxn before it has written the ends on the partitions: it has when it says so again.
        """
        async with asyncio.timeout(LATE_WITHIN_S):
            late = again = Late(kept.request, moment, await self._ask(kept.frame))
            while kept.request.api == Api.END_TXN and again.answer:
                again = again._replace(answer=await self._ask(kept.frame))
                if again.error != CONCURRENT_TRANSACTIONS:
                    break
                await asyncio.sleep(0.002)
        self.late.append(late)

    async def _ask(self, frame: bytes) -> bytes:
        """The broker's answer to a request on a connection of its own; nothing if it hangs up."""
        reader, writer = await asyncio.open_connection(self._host, self._broker_port)
        try:
            with suppress(ConnectionError, IncompleteReadError):
                _write_frame(writer, frame)
                return await _read_frame(reader)
        finally:
            await _close(writer)
        return b""


async def _read_frame(reader: StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _write_frame(writer: StreamWriter, frame: bytes) -> None:
    writer.write(struct.pack(">i", len(frame)))
    writer.write(frame)


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _close(*writers: StreamWriter) -> None:
    for writer in writers:
        writer.close()
    for writer in writers:
        with suppress(OSError):
            await writer.wait_closed()
