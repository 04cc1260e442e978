"""Bayeux without a server: names, spellings of requests, elements, and the mailbox."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from stage import Loop, Stage
from waiting import PATIENCE

from push_server.bayeux.elements import BAYEUX
from push_server.bayeux.mailbox import GONE_SECONDS, REPLAY_BYTES, Mailbox, farewell
from push_server.bayeux.names import to_channel, to_glob, to_name
from push_server.bayeux.requests import check_callback, json_of, messages_of, script
from push_server.brokers.memory import MemoryBroker
from push_server.channels import Namespaces
from push_server.doors.bayeux import POLLING, SEEN_LIMIT, Bayeux, Client
from push_server.doors.bayeux_http import _Stream
from push_server.doors.bayeux_socket import _Line
from push_server.doors.lobby import CONNECT_SECONDS, Lobby
from push_server.errors import BadInput, Unavailable
from push_server.history import EPOCH
from push_server.positions import Position
from push_server.publications import Publication, PublishRequest, dump_json
from push_server.revocations import TOKEN, Revocation
from push_server.rooms import Glob
from push_server.settings import Settings
from push_server.tokens import TokenKeys
from push_server.transports import TRANSPORTS

# Names.


@pytest.mark.parametrize(
    ("name", "channel"),
    [
        ("/node/7", "node:7"),
        ("/chat", "chat"),
        ("/a/b/c", "a:b/c"),
        ("/a/b:c/d", "a:b:c/d"),
        ("/user/42", "user:42"),
        ("/A-._/x_.-", "A-._:x_.-"),
    ],
)
def test_names_go_both_ways(name: str, channel: str) -> None:
    assert to_channel(name) == channel
    assert to_name(channel) == name


@pytest.mark.parametrize(
    "name",
    ["", "/", "//", "a", "a/b", "/a/", "/a//b", "/a:b", "/a/b/", "/a/*", "/a/**", "/a b", "/$a",
     "/a/$b", "/é", "/a/b\n", "/" + "a" * 130, None, 7, ["/a"], "/a/{b}"],
)
def test_what_is_no_name(name: Any) -> None:
    with pytest.raises(BadInput):
        to_channel(name)


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("/chat/*", ["chat:a", "chat:a:b"], ["chat", "chat:a/b", "chats:a", "$chat:a"]),
        ("/chat/**", ["chat:a", "chat:a/b/c"], ["chat", "chats:a"]),
        ("/a/b/*", ["a:b/c"], ["a:b", "a:b/c/d", "a:bc/d"]),
        ("/*", ["chat"], ["chat:a", "a/b", "user:1", "$x"]),
        ("/**", ["chat", "chat:a", "a:b/c"], ["user:1", "$x"]),
        ("/user/*", ["user:1"], ["users:1"]),
    ],
)
def test_globs(name: str, inside: list[str], outside: list[str]) -> None:
    glob = to_glob(name)
    assert glob is not None
    assert [channel in glob for channel in inside] == [True] * len(inside)
    assert [channel in glob for channel in outside] == [False] * len(outside)


@pytest.mark.parametrize("name", ["/chat", "/chat/***", "/chat*", "/*/a", "*", "/a//*", None, 5])
def test_what_is_no_glob(name: Any) -> None:
    assert to_glob(name) is None


# Requests.


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'[{"a":1}]', b'[{"a":1}]'),
        (b"message=%5B%7B%22a%22%3A1%7D%5D", b'[{"a":1}]'),
        (b"message=%5B%22a+b%22%5D", b'["a b"]'),
        (b"message=%5B%22%C5%BE%22%5D", '["ž"]'.encode()),
    ],
)
def test_how_clients_spell_a_request(body: bytes, text: bytes) -> None:
    assert json_of(body) == text


@pytest.mark.parametrize("body", [b"message=a&message=b", b"message=%FF", "message=ž".encode()])
def test_forms_that_cannot_be_read(body: bytes) -> None:
    with pytest.raises(BadInput):
        json_of(body)


@pytest.mark.parametrize("value", [[], {}, [{}], [{"a": 1}] * 100])
def test_messages(value: Any) -> None:
    if value == []:
        with pytest.raises(BadInput):
            messages_of(value)
    else:
        assert len(messages_of(value)) == (len(value) or 1)


@pytest.mark.parametrize("value", [[1], [[]], 5, "a", None, [{}, "b"], [{}] * 1_001])
def test_what_are_no_messages(value: Any) -> None:
    with pytest.raises(BadInput):
        messages_of(value)


@pytest.mark.parametrize("name", ["_cometd_jsonp_0", "__jsonp1__", "a.b.c", "$", "jQuery1_2"])
def test_callbacks(name: str) -> None:
    assert check_callback(name) == name
    body = script(name, dump_json([{"text": "</script><!-- \u2028"}]))
    assert body.startswith(b"/**/" + name.encode() + b"([") and body.endswith(b"]);")
    assert b"<" not in body and body.isascii()


@pytest.mark.parametrize(
    "name", ["", "alert(1)", "a;b", "1a", "a b", "ž", "a" * 65, "a\n", "</script>", "CWS\x07\x0e"]
)
def test_44_hostile_callbacks(name: str) -> None:
    with pytest.raises(BadInput):
        check_callback(name)


# Elements.


def place(number: int, data: Any, **more: Any) -> Publication:
    request = PublishRequest("node:7", f"i{number}", dump_json(data), **more)
    return Publication.place(request, 7, number, 0.0)


@pytest.mark.parametrize(
    "data", [None, 1, "x", '","data":', "\u2028</script>", {"channel": "/x", "data": [1]}, [[]]]
)
def test_elements(data: Any) -> None:
    publications = [place(n, data, user='a","data":"b') for n in (1, 2)]
    pieces = BAYEUX.encode(publications)
    text = BAYEUX.join(b"~rest", pieces)
    assert text.endswith(b",")
    values = json.loads(b"[%b]" % text[:-1])
    assert values == [
        {
            "channel": "/node/7",
            "id": each.id,
            "data": data,
            "ext": {
                "push": {
                    "offset": each.position.offset,
                    "id": each.id,
                    "user": 'a","data":"b',
                    "cursor": f"1~{each.entry}~rest",
                }
            },
        }
        for each in publications
    ]
    for value in values:
        del value["ext"]["push"]["cursor"]
    assert json.loads(b"[%b]" % BAYEUX.bare(publications)[:-1]) == values
    assert BAYEUX.bare([]) == b""


def test_control_messages() -> None:
    assert BAYEUX.control({"type": "ping"}, "1~") == BAYEUX.control({"type": "hello"}, "1") == b""
    said = BAYEUX.control({"type": "reset", "channels": ["a"]}, "1~c")
    assert json.loads(said[:-1]) == {
        "channel": "/service/push",
        "data": {"type": "reset", "channels": ["a"], "cursor": "1~c"},
    }
    assert BAYEUX.relay(b'{"type":"reset","channels":["a"]}', "1~c") == said
    assert BAYEUX.head((("A", "b"),)) == b""


# The mailbox.


class Owner:
    """As much of a hub as a mailbox needs."""

    queue_bytes = 1000

    def __init__(self) -> None:
        self._loop = Loop()
        self.loop: asyncio.AbstractEventLoop = self._loop
        self.watch: Any = None
        self.blocked: set[Any] = set()
        self.ends: list[str] = []

    def closed(self, connection: Any, reason: str) -> None:
        self.ends.append(reason)

    def turn(self, seconds: float = 0) -> None:
        self._loop.turn(seconds)


@pytest.fixture
def owner() -> Iterator[Owner]:
    made = Owner()
    yield made
    made.loop.close()


class Answers(list[Any]):
    """What was sent, parsed."""

    def send(self, array: bytes) -> None:
        self.append(json.loads(array))


def has_room(box: Mailbox) -> bool:
    return box.idle


def idle() -> bool:
    return True


def due(box: Mailbox) -> bool:
    return box.due


REPLY: dict[str, Any] = {"channel": "/meta/connect", "successful": True}


def test_what_waits_goes_with_the_next_connect(owner: Owner) -> None:
    owner.queue_bytes = 2 * REPLAY_BYTES
    box, got = Mailbox(owner, acks=False), Answers()
    box.write(b'{"n":1},')
    box.write(b'{"n":2},{"n":3},')
    assert due(box)
    box.write(b'{"n":"%b"},' % (b"x" * REPLAY_BYTES))
    assert not has_room(box)
    emptied: list[int] = []
    box.when_idle(lambda: emptied.append(1))
    box.connect(REPLY, got.send, 10)
    assert got[0][:3] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert (len(got[0]), got[0][-1]) == (5, REPLY)
    assert has_room(box) and not due(box)
    owner.turn()
    assert emptied == [1]
    box.close("left")


def test_a_held_connect_gets_all_of_one_turn(owner: Owner) -> None:
    box, got = Mailbox(owner, acks=False), Answers()
    box.connect(REPLY, got.send, 10)
    box.write(b'{"n":1},')
    box.write(b'{"n":2},')
    assert got == []
    owner.turn()
    assert got == [[{"n": 1}, {"n": 2}, REPLY]]
    box.write(b'{"n":3},')
    owner.turn()
    assert len(got) == 1
    box.close("left")


def test_a_held_connect_has_its_time(owner: Owner) -> None:
    box, got = Mailbox(owner, acks=False), Answers()
    box.connect(REPLY, got.send, 10)
    owner.turn(9)
    assert got == []
    owner.turn(2)
    assert got == [[REPLY]]
    box.close("left")


def test_a_second_connect_completes_the_first(owner: Owner) -> None:
    box, first, second = Mailbox(owner, acks=False), Answers(), Answers()
    box.connect(REPLY, first.send, 10)
    box.connect(REPLY, second.send, 10)
    assert (first, second) == ([[REPLY]], [])
    box.write(b'{"n":1},')
    owner.turn()
    assert (len(first), second) == (1, [[{"n": 1}, REPLY]])
    box.close("left")


def test_a_connect_whose_client_hangs_up_is_none(owner: Owner) -> None:
    box, got, again = Mailbox(owner, acks=False), Answers(), Answers()
    box.connect(REPLY, got.send, 10)
    box.lose(got.send)
    box.write(b'{"n":1},')
    owner.turn()
    assert got == []
    box.connect(REPLY, again.send, 10)
    assert again == [[{"n": 1}, REPLY]]
    box.close("left")


def test_acknowledgements(owner: Owner) -> None:
    box, got = Mailbox(owner, acks=True), Answers()

    def connect(confirms: object, seconds: float = 0) -> Any:
        box.confirm(confirms)
        box.connect(REPLY, got.send, seconds)
        return got[-1] if got else None

    assert connect(0) == [{**REPLY, "ext": {"ack": 1}}]
    box.write(b'{"n":1},')
    assert connect(1) == [{"n": 1}, {**REPLY, "ext": {"ack": 2}}]
    # The answer was lost: everything comes again, in order, with what is new.
    box.write(b'{"n":2},')
    assert connect(1, 10) == [{"n": 1}, {"n": 2}, {**REPLY, "ext": {"ack": 3}}]
    assert connect(2) == [{"n": 2}, {**REPLY, "ext": {"ack": 4}}]
    assert connect(99) == [{**REPLY, "ext": {"ack": 5}}]
    box.close("left")


@pytest.mark.parametrize("nonsense", [None, "1", [1], 1.5, -1, True], ids=str)
def test_what_is_no_number_acknowledges_nothing(owner: Owner, nonsense: object) -> None:
    box, got = Mailbox(owner, acks=True), Answers()
    box.write(b'{"n":1},')
    box.connect(REPLY, got.send, 0)
    box.confirm(nonsense)
    box.connect(REPLY, got.send, 0)
    assert [answer[0] for answer in got] == [{"n": 1}, {"n": 1}]
    box.close("left")


def test_with_a_stream_it_leaves_at_once(owner: Owner) -> None:
    box, streamed, held = Mailbox(owner, acks=False), Answers(), Answers()
    box.write(b'{"n":1},')
    ends: list[str] = []
    box.stream(streamed.send, lambda mailbox, reason: ends.append(reason), idle)
    box.connect(REPLY, held.send, 10)
    box.write(b'{"n":2},{"n":3},')
    owner.turn()
    assert (streamed, held) == ([[{"n": 1}], [{"n": 2}, {"n": 3}]], [])
    box.close("revoked")
    assert ends == owner.ends == ["revoked"]
    assert held[0][0]["error"] == "403::revoked"
    assert held[0][0]["advice"] == {"reconnect": "none"}


def test_a_newer_stream_ends_the_older(owner: Owner) -> None:
    box, first, second = Mailbox(owner, acks=False), Answers(), Answers()
    ends: list[str] = []
    box.stream(first.send, lambda mailbox, reason: ends.append(f"first {reason}"), idle)
    box.stream(second.send, lambda mailbox, reason: ends.append(f"second {reason}"), idle)
    box.write(b'{"n":1},')
    assert (first, second) == ([], [[{"n": 1}]])
    box.break_off(first.send)
    box.close("left")
    assert ends == ["first replaced", "second left"]


def test_with_acknowledgements_a_stream_carries_answers_only(owner: Owner) -> None:
    box, streamed = Mailbox(owner, acks=True), Answers()
    box.stream(streamed.send, lambda mailbox, reason: None, idle)
    box.write(b'{"n":1},')
    owner.turn()
    assert streamed == []
    box.break_off(streamed.send)
    assert not box.ended
    box.connect(REPLY, streamed.send, 10)
    assert streamed[0][0] == {"n": 1}
    box.close("left")


def test_a_broken_stream_ends_the_session(owner: Owner) -> None:
    """What was in it is read or lost, and nobody can tell which."""
    box, streamed, later = Mailbox(owner, acks=False), Answers(), Answers()
    box.stream(streamed.send, lambda mailbox, reason: None, idle)
    box.break_off(later.send)  # another's
    assert not box.ended
    box.break_off(streamed.send)
    assert owner.ends == ["gone"]
    box.write(b'{"n":1},')
    box.connect(REPLY, later.send, 10)
    assert later[0][0]["error"] == "402::session_unknown"
    assert later[0][0]["advice"] == {"reconnect": "handshake", "interval": 0}


@pytest.mark.parametrize("acks", [False, True])
def test_what_waits_has_a_budget(owner: Owner, acks: bool) -> None:
    box, got = Mailbox(owner, acks=acks), Answers()
    box.write(b'{"n":"%b"},' % (b"x" * 2000))  # one turn may be larger than the budget
    assert not box.ended
    if acks:
        box.connect(REPLY, got.send, 0)
    box.write(b'{"n":1},')
    assert owner.ends == ["slow"]
    box.close("gone")
    assert owner.ends == ["slow"]


def test_a_client_that_comes_no_more_is_gone(owner: Owner) -> None:
    box, got = Mailbox(owner, acks=False), Answers()
    ended: list[bool] = []
    box.on_end = lambda: ended.append(True)
    box.connect(REPLY, got.send, 2 * GONE_SECONDS)
    owner.turn(1.5 * GONE_SECONDS)
    assert not box.ended  # it is held
    box.stream(got.send, lambda mailbox, reason: None, idle)  # which is no sign of life
    owner.turn(GONE_SECONDS)  # its connect is answered
    owner.turn(1.5 * GONE_SECONDS)
    assert (owner.ends, ended, got) == (["gone"], [True], [[REPLY]])
    assert not box.release()


def test_the_last_words_go_with_the_held_connect(owner: Owner) -> None:
    box, got = Mailbox(owner, acks=False), Answers()
    box.connect(REPLY, got.send, 10)
    box.write(b'{"type":"reconnect"},')
    box.finish("drain")
    assert got == [[{"type": "reconnect"}, REPLY]]  # and the next connect finds no server
    owner.turn()
    assert len(got) == 1


@pytest.mark.parametrize(("reason", "interval"), [("replaced", 5000), ("age", 0), ("slow", 0)])
def test_who_made_room_does_not_come_back_at_once(reason: str, interval: int) -> None:
    assert farewell(reason)["advice"] == {"reconnect": "handshake", "interval": interval}


def test_globs_are_values() -> None:
    assert to_glob("/a/*") == Glob("a:", deep=False) != to_glob("/a/**")


@pytest.mark.parametrize("slow", [False, True])
def test_who_watches_a_channel_and_enters_it_is_told_everything_once(
    monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    monkeypatch.setitem(TRANSPORTS, "bayeux", BAYEUX)
    stage = Stage(monkeypatch, Namespaces())
    hub, gate = stage.hub, asyncio.Event()

    async def late(since: Any) -> Any:
        await gate.wait()
        return await MemoryBroker.read(stage.broker, since)

    alice = stage.attach("alice", transport="bayeux")
    glob = Glob("c:", deep=False)
    stage.run(hub.watch_glob(alice.subscriber, glob, again=False))
    stage.publish("c:1", b"1")
    stage.place("c:1", b"2")  # due, and not sent yet
    monkeypatch.setattr(stage.broker, "read", late)
    entering = hub.subscribe(alice.subscriber, "", ["c:1"], None, lambda: None)
    stage.tasks.append(stage.loop.create_task(entering))
    stage.turn()
    stage.publish("c:1", b"3")  # in the head that is read, too
    alice.blocked = slow
    gate.set()
    stage.turn()
    stage.publish("c:1", b"4")
    stage.place("c:1", b"5")
    hub.unsubscribe(alice.subscriber, ["c:1"])
    stage.turn()
    hub.missed()
    hub.restarted("c:1", EPOCH, Position(9, 0, "0"))
    hub.restarted("d:1", EPOCH, Position(9, 0, "0"))
    hub.unwatch_glob(alice.subscriber, glob)
    stage.publish("c:1", b"6")
    stage.run(hub.watch_glob(alice.subscriber, glob, again=False))
    hub.unheard("d:")
    assert alice.closed() == ""
    hub.unheard("c:")
    assert alice.closed() == "failed"
    told = json.loads(b"[%b]" % b"".join(alice.writes)[:-1])
    assert [each["data"] for each in told if each["channel"] == "/c/1"] == [1, 2, 3, 4, 5]
    resets = [each["data"]["channels"] for each in told if each["channel"] == "/service/push"]
    assert resets == [["c:*"], ["c:1"]]
    stage.close()


def test_what_comes_while_a_watcher_enters_in_vain_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRANSPORTS, "bayeux", BAYEUX)
    stage = Stage(monkeypatch, Namespaces())
    gate = asyncio.Event()

    async def fail(_: Any) -> Any:
        await gate.wait()
        raise Unavailable("away", "x")

    alice = stage.attach("alice", transport="bayeux")
    stage.run(stage.hub.watch_glob(alice.subscriber, Glob("c:", deep=False), again=False))
    monkeypatch.setattr(stage.broker, "read", fail)
    entering = stage.hub.subscribe(alice.subscriber, "", ["c:1"], None, lambda: None)
    stage.tasks.append(stage.loop.create_task(entering))
    stage.turn()
    stage.publish("c:1", b"1")
    gate.set()
    stage.turn()
    stage.publish("c:1", b"2")
    told = json.loads(b"[%b]" % b"".join(alice.writes)[:-1])
    assert [each["data"] for each in told] == [1, 2]
    stage.close()


def test_a_broadcast_to_all_that_a_client_watches_has_its_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TRANSPORTS, "bayeux", BAYEUX)
    stage = Stage(monkeypatch, Namespaces(), queue_bytes=100_000)
    alice = stage.attach("alice", transport="bayeux")
    stage.run(stage.hub.watch_glob(alice.subscriber, Glob("c:", deep=False), again=False))
    for number in range(20):
        stage.place(f"c:{number}", b'"%b"' % (b"x" * 30_000))
    stage.turn()
    assert len(json.loads(b"[%b]" % b"".join(alice.writes)[:-1])) == 20
    assert max(map(len, alice.writes)) < 150_000, "beyond that its connection decides"
    stage.close()


def test_what_cannot_be_told_to_a_watcher_reaches_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TRANSPORTS, "bayeux", BAYEUX)
    stage = Stage(monkeypatch, Namespaces())
    alice = stage.attach("alice", transport="bayeux")
    stage.run(stage.hub.watch_glob(alice.subscriber, Glob("c:", deep=False), again=False))
    bob = stage.attach("bob", "c:1", "d:1")

    def poison(*_: Any) -> Any:
        raise ArithmeticError("a fault of the test")

    monkeypatch.setattr(type(BAYEUX), "bare", poison)
    stage.place("c:1", b"1")
    stage.place("d:1", b"2")
    stage.turn()
    assert (alice.closed(), bob.data) == ("failed", [1, 2])
    stage.close()


def test_who_ends_while_it_begins_to_watch_watches_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(TRANSPORTS, "bayeux", BAYEUX)
    stage = Stage(monkeypatch, Namespaces())
    alice = stage.attach("alice", transport="bayeux")
    alice.breaks = True  # at the first word, which is that something may be missing
    stage.run(stage.hub.watch_glob(alice.subscriber, Glob("c:", deep=False), again=True))
    assert alice.closed() == "failed"
    assert stage.hub._rooms.watched() == {}
    stage.close()


def test_a_stream_whose_client_is_gone_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, Namespaces())
    box = Mailbox(stage.hub, acks=False)
    box.write(b'{"n":1},')
    client, ours = socket.socketpair()
    client.close()
    _Stream(stage.hub, box, (), ours)
    box.write(b'{"n":2},')
    got = Answers()
    box.connect(REPLY, got.send, 0)
    assert [each.get("n") for each in got[0]] == [1, 2, None]
    box.close("left")
    stage.close()


def test_a_websocket_has_a_session_or_has_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Stage(monkeypatch, Namespaces())
    context: Any = SimpleNamespace(hub=stage.hub, settings=Settings())
    bayeux, lobby = Bayeux(context), Lobby(context)
    box = Mailbox(stage.hub, acks=False)
    grant: Any = None
    bayeux._clients["me"] = Client(box, grant, None)
    pairs = [socket.socketpair() for _ in range(2)]
    lines = [_Line(bayeux, lobby, "192.0.2.1") for _ in pairs]
    for line, (_, ours) in zip(lines, pairs, strict=True):
        ours.setblocking(False)
        line.wait(ours, (), ())
        line._bind([{"channel": "/meta/publish", "clientId": "me"}])
    assert lobby._strangers.total() == 2, "none of them has fetched"
    for number, line in enumerate(lines):
        line._bind([{"channel": "/meta/connect", "clientId": "me"}])
        stage.turn()
        assert lobby._strangers.total() == 1 - number
    assert [line._connection.open for line in lines] == [False, True], "one fetches at a time"
    box.close("gone")
    assert [line._connection.open for line in lines] == [False, True]
    assert lobby._strangers.total() == 1
    stage.loop.turn(CONNECT_SECONDS + 1)
    assert [line._connection.open for line in lines] == [False, False]
    for client, _ in pairs:
        client.close()
    stage.turn()
    assert not lobby._strangers
    stage.close()


class Site:
    """Sessions on a stage, for who has a token."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stage = Stage(monkeypatch, Namespaces())
        self.keys = TokenKeys(["a token key of 32 characters...."])
        context: Any = SimpleNamespace(
            hub=self.stage.hub,
            settings=Settings(),
            tokens=self.keys,
            revocations=self.stage.revocations,
        )
        self.bayeux = Bayeux(context)

    def token(self, **claims: Any) -> str:
        now = time.time()
        basic = {"v": 1, "sub": "1", "sid": "s", "iat": now, "exp": now + 600, "sub_ch": ["*"]}
        return self.keys.issue({**basic, **claims})

    def ask(self, channel: str, **members: Any) -> "asyncio.Task[dict[str, Any]]":
        async def first() -> Any:
            message = {"channel": channel, **members}
            answer = await self.bayeux.answer([message], POLLING, "192.0.2.1", holds=False)
            assert isinstance(answer, bytes)
            return json.loads(answer)[0]

        return self.stage.loop.create_task(first())

    def answer(self, asked: "asyncio.Task[dict[str, Any]]") -> dict[str, Any]:
        async def soon() -> dict[str, Any]:
            return await asyncio.wait_for(asked, PATIENCE)

        return self.stage.run(soon())

    def shake_hands(self, **more: Any) -> dict[str, Any]:
        ext = {"push": {"token": self.token(), **more}}
        return self.answer(self.ask("/meta/handshake", supportedConnectionTypes=[POLLING], ext=ext))

    def close(self, session: str) -> None:
        self.answer(self.ask("/meta/disconnect", clientId=session))
        self.stage.check_empty()
        self.stage.close()


def test_who_ends_while_it_subscribes_is_in_no_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site(monkeypatch)
    first = site.shake_hands()
    second = site.shake_hands(since=first["ext"]["push"]["cursor"])["clientId"]
    client = site.bayeux.client(second)
    assert client is not None
    client.seen.add("a:1")  # so that the two are not entered together
    site.stage.broker.gate.clear()
    entering = site.ask("/meta/subscribe", clientId=second, subscription=["/a/1", "/b/1"])
    site.stage.turn()
    client.mailbox.close("revoked")
    site.stage.broker.gate.set()
    assert site.answer(entering)["error"] == "402::session_unknown"
    site.close(first["clientId"])


def test_a_token_that_is_revoked_while_channels_change_renews_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(monkeypatch)
    session = site.shake_hands()["clientId"]
    site.stage.broker.gate.clear()
    entering = site.ask("/meta/subscribe", clientId=session, subscription="/a/1")
    site.stage.turn()
    ext = {"push": {"token": site.token(jti="newer")}}
    renewing = site.ask("/meta/connect", clientId=session, connectionType=POLLING, ext=ext)
    site.stage.turn()
    site.stage.hub.revoke(Revocation(TOKEN, "newer", 2.0**53, 2.0**53))
    site.stage.broker.gate.set()
    assert site.answer(entering)["successful"]
    assert site.answer(renewing)["error"].startswith("401:token_invalid:")
    site.close(session)


def test_a_session_does_not_remember_all_the_channels_it_ever_was_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = Site(monkeypatch)
    first = site.shake_hands()["clientId"]
    site.answer(site.ask("/meta/subscribe", clientId=first, subscription="/kept/1"))
    site.stage.publish("kept:1", b"1")
    client = site.bayeux.client(first)
    assert client is not None
    cursor = client.subscriber.cursor
    site.stage.publish("kept:1", b"2")
    second = site.shake_hands(since=cursor)["clientId"]
    client = site.bayeux.client(second)
    assert client is not None

    def stay_a_while(names: list[str]) -> None:
        for channel in ("/meta/subscribe", "/meta/unsubscribe"):
            answer = site.answer(site.ask(channel, clientId=second, subscription=names))
            assert answer["successful"], answer

    stay_a_while(["/kept/1"])
    for number in range(0, 3 * SEEN_LIMIT, 50):
        stay_a_while([f"/brief/{number + one}" for one in range(50)])
    assert len(client.seen) <= SEEN_LIMIT + 50
    assert "kept:1" in client.seen, "or it would be told of the same publication again"
    site.answer(site.ask("/meta/disconnect", clientId=second))
    site.close(first)
