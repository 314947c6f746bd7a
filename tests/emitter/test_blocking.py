"""Plain calls: threads, processes that are forked, the end of a program. On a real Valkey and a real nats-server."""

import asyncio
import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import msgspec
import pytest

from bellwire import BellwireError, BrokerUnavailable, Emitter
from bellwire.brokers.guest import visit
from bellwire.core.counters import Counters
from bellwire.delivery.answer import Page
from bellwire.delivery.naming import stream_of
from bellwire.emitter.blocking import BlockingEmitter
from tests.brokers.redis_server import RedisServer, proxied
from tests.emitter.house import SAY, WAVE, opened

REAL = pytest.mark.bellwire(clock="real")


async def read(url: str, room: str) -> list[tuple[str, str]]:
    """What was emitted to a room, with the ids."""
    async with visit(url, Counters()) as broker:
        top = await broker.top(stream_of("/", room))
        page = await broker.read(stream_of("/", room), top._replace(seq=0, tag=0))
    assert isinstance(page, Page)
    return [(msgspec.msgpack.decode(entry.body)[2][0], entry.mid) for entry in page.entries]


def emitted(url: str, room: str) -> list[str]:
    return [text for text, _ in asyncio.run(read(url, room))]


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bellwire: emitter"]


@REAL
async def test_a_thread_reaches_rooms_users_and_everyone(url: str) -> None:
    def work() -> None:
        with Emitter(url).blocking() as emitter:
            root = emitter.namespace("/")
            root.emit(SAY, "all")
            root.to("a").except_("b").emit(SAY, "not b")
            root.user("ann").emit(SAY, "ann")
            root.to("a", "b").emit(WAVE, 5)
            root.emit(SAY, "end", mid="end")
            root.emit(SAY, "end", mid="end")

    async with opened(url) as house, house.client("a", user="ann") as ann, house.client("a", "b") as bob:
        await asyncio.to_thread(work)
        await ann.until("all", "not b", "ann", 5, "end")
        await bob.until("all", 5, "end")


def test_threads_share_one_connection_and_each_keeps_its_order(url: str) -> None:
    with Emitter(url).blocking() as emitter, ThreadPoolExecutor(8) as pool:

        def work(worker: int) -> None:
            for n in range(20):
                emitter.namespace("/").to("threads").emit(SAY, f"{worker}:{n}")

        list(pool.map(work, range(8)))
        assert len(threads()) == 1
    texts = emitted(url, "threads")
    assert len(texts) == 160
    for worker in range(8):
        assert [text for text in texts if text.startswith(f"{worker}:")] == [f"{worker}:{n}" for n in range(20)]


def test_nothing_is_started_before_the_first_emit(redis: RedisServer) -> None:
    emitter = Emitter(redis.url).blocking()
    emitter.namespace("/").to("a")
    assert threads() == []
    emitter.close()
    assert threads() == []


def test_a_wrong_payload_is_found_out_without_a_broker() -> None:
    with Emitter("redis://127.0.0.1:1").blocking() as emitter:
        with pytest.raises(TypeError, match="takes 1 payload argument"):
            cast("Any", emitter.namespace("/")).emit(SAY)
        with pytest.raises(ValueError, match="volatile and in no history"):
            emitter.namespace("/").emit(WAVE, 1, mid="mid")
        assert threads() == []
        with pytest.raises(BrokerUnavailable):
            emitter.namespace("/").emit(SAY, "hello")


@REAL
async def test_a_broker_that_was_not_there_is_looked_for_again(redis: RedisServer) -> None:
    async with proxied(redis) as (address, proxy):
        emitter = Emitter(address).blocking()
        target = emitter.namespace("/").to("late")
        proxy.close_door()
        with pytest.raises(BrokerUnavailable):
            await asyncio.to_thread(target.emit, SAY, "nobody")
        proxy.open_door()
        await asyncio.to_thread(target.emit, SAY, "hello")
        await asyncio.to_thread(emitter.close)
    assert [text for text, _ in await read(redis.url, "late")] == ["hello"]


async def test_it_does_not_stop_an_event_loop() -> None:
    emitter = Emitter("redis://host").blocking()
    with pytest.raises(RuntimeError, match=r"which would stand still: write async with Emitter.* or .*to_thread"):
        emitter.namespace("/").emit(SAY, "hello")


# --- its end


def test_what_is_closed_emits_nothing(redis: RedisServer) -> None:
    emitter = Emitter(redis.url).blocking()
    emitter.namespace("/").to("closed").emit(SAY, "hello")
    emitter.close()
    emitter.close()
    assert threads() == []
    with pytest.raises(BellwireError, match=r"Emitter\(.*\)\.blocking\(\) is closed: make another one") as raised:
        emitter.namespace("/").to("closed").emit(SAY, "late")
    assert "for-tests-only" not in str(raised.value)
    assert emitted(redis.url, "closed") == ["hello"]


@REAL
async def test_closing_waits_for_what_is_under_way(redis: RedisServer) -> None:
    async with proxied(redis) as (address, proxy):
        emitter = Emitter(address).blocking()
        target = emitter.namespace("/").to("under way")
        await asyncio.to_thread(target.emit, SAY, "first")
        proxy.swallow()
        emitting = asyncio.create_task(asyncio.to_thread(target.emit, SAY, "second"))
        await proxy.swallowed.wait()
        closing = asyncio.create_task(asyncio.to_thread(emitter.close))
        proxy.cut()
        await asyncio.gather(emitting, closing)
    assert [text for text, _ in await read(redis.url, "under way")] == ["first", "second"]


def test_one_that_nothing_refers_to_ends(redis: RedisServer) -> None:
    Emitter(redis.url).blocking().namespace("/").to("dropped").emit(SAY, "hello")
    gc.collect()
    assert threads() == []


SCRIPT = """
import asyncio, os, signal, sys, threading
from bellwire import Emitter, Event
SAY = Event("say", str)
emitter = Emitter(sys.argv[1]).blocking()
room = emitter.namespace("/").to(sys.argv[2])
"""


def run(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has an emitter and a room."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT + source, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_program_may_end_without_closing_it(url: str) -> None:
    ended = run('room.emit(SAY, "last word")', url, "ends")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert emitted(url, "ends") == ["last word"]


def test_what_is_emitted_at_the_very_end_is_emitted_or_refused(redis: RedisServer) -> None:
    source = """
import atexit
from bellwire import BellwireError
def last():
    try:
        room.emit(SAY, "too late")
    except BellwireError as error:
        print(error.code, "closed" in str(error))
atexit.register(last)
room.emit(SAY, "hello")
"""
    ended = run(source, redis.url, "very end")
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "error True\n")
    assert emitted(redis.url, "very end") == ["hello"]


FORKING = """
def child(text):
    pid = os.fork()
    if pid:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    else:
        room.emit(SAY, text)
        room.emit(SAY, text + " again")
        sys.exit()
"""


def test_processes_that_are_forked_before_the_first_emit_connect_by_themselves(url: str) -> None:
    ended = run(FORKING + 'child("one"); child("two"); room.emit(SAY, "parent")', url, "forked early")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert emitted(url, "forked early") == ["one", "one again", "two", "two again", "parent"]


def test_a_child_starts_anew_and_its_parent_goes_on(url: str) -> None:
    source = (
        'import warnings; warnings.simplefilter("ignore", DeprecationWarning)\n'  # of Python 3.12: threads and fork
    )
    source += FORKING + 'room.emit(SAY, "before"); child("one"); room.emit(SAY, "between"); child("two")\n'
    ended = run(source + 'room.emit(SAY, "after")', url, "forked late")
    assert (ended.returncode, ended.stderr) == (0, "")
    found = asyncio.run(read(url, "forked late"))
    texts = ["before", "one", "one again", "between", "two", "two again", "after"]
    assert [text for text, _ in found] == texts
    assert len({mid for _, mid in found}) == len(texts)  # the same id would be taken for a double


def test_a_time_limit_ends_the_wait_and_nothing_else(redis: RedisServer) -> None:
    source = """
class TimeLimit(Exception): pass
def over(*_): raise TimeLimit
signal.signal(signal.SIGALRM, over)
async def hang(publisher):
    signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        print("cancelled", flush=True)
        raise
try:
    emitter.send(hang)
except TimeLimit:
    room.emit(SAY, "next task")
"""
    ended = run(source, redis.url, "limited")
    assert (ended.returncode, ended.stderr, ended.stdout) == (0, "", "cancelled\n")
    assert emitted(redis.url, "limited") == ["next task"]


def test_a_thread_that_cannot_start_a_loop_says_so_and_the_next_emit_tries_again(redis: RedisServer) -> None:
    source = """
import resource
files = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, files[1]))
try:
    room.emit(SAY, "no file")
except OSError as error:
    print(error.strerror, flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, files)
room.emit(SAY, "hello")
"""
    ended = run(source, redis.url, "no loop")
    assert (ended.returncode, ended.stdout) == (0, "Too many open files\n")  # asyncio itself complains beside
    assert emitted(redis.url, "no loop") == ["hello"]


def test_it_is_shown_without_secrets() -> None:
    emitter: BlockingEmitter = Emitter("redis://:secret@host").blocking()
    assert repr(emitter) == "Emitter('redis://***@host').blocking()"
    with pytest.raises(ValueError, match="is a pattern"):
        emitter.namespace("/org/{org}")
