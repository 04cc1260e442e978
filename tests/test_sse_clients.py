"""Server-sent events as others read them: EventSource for Node, and httpx-sse.

They split lines, join them and come back by themselves in ways of their own; what they hand on is
what was published. In browsers: tests/browser/test_every_transport.py.
"""

import json
import subprocess
from collections.abc import Callable
from itertools import islice
from typing import Any

import httpx
from bayeux_modules import bayeux_modules
from harness import PushServer
from httpx_sse import connect_sse

HOSTILE: list[Any] = [
    "a", "a\r\nb", "\r", "\n\n", "\u2028\u2029", "\x0b\x0c\x1c\x85", " one", "  two", "data: x",
    "id: 1\nevent: control", "\ufeffmark", "\0", ":comment", "", None, [], {"a": [1, None, True]},
    "</script>", "é€\U0001f600" * 1_000, "x" * 70_000, "y" * 200_000,
]
"""What line splitters disagree about, what looks like another field, and what is long."""

SCRIPT = """
const [modules, url, token] = process.argv.slice(1);
const { EventSource } = require("node:module").createRequire(modules + "/")("eventsource");
const watchdog = setTimeout(() => process.exit(1), 20000);
const source = new EventSource(url, {
  fetch: (input, init) =>
    fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } }),
});
const say = (value) => console.log(JSON.stringify(value));
source.addEventListener("control", ({ data }) => say({ control: JSON.parse(data).type }));
source.onmessage = ({ data }) => {
  const publication = JSON.parse(data);
  say({ data: publication.data });
  if (publication.data !== "last") return;
  clearTimeout(watchdog);
  source.close();
};
"""


def test_event_source(push: PushServer) -> None:
    """It comes back by itself, with the last id that it was given, and misses nothing."""
    token = push.token("eventsource")
    url = f"http://127.0.0.1:{push.port}/subscribe/sse?channel=sse:node"
    got: list[Any] = []
    controls: list[str] = []
    begin: dict[str, Callable[[], object]] = {
        "hello": lambda: [push.api("publish", channel="sse:node", data=each) for each in HOSTILE],
        "reconnect": lambda: push.api("publish", channel="sse:node", data="last"),
    }
    command = ["node", "-e", SCRIPT, str(bayeux_modules()), url, token]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said = json.loads(line)
            if "data" in said:
                got.append(said["data"])
                if len(got) == len(HOSTILE):
                    push.api("disconnect", user="eventsource")
            else:
                controls.append(said["control"])
                begin.pop(controls[-1], lambda: None)()
    assert process.returncode == 0, (controls, len(got))
    assert got == [*HOSTILE, "last"]
    assert controls == ["hello", "reconnect", "hello", "recovered"]


def test_httpx_sse(push: PushServer) -> None:
    """It is a reader only: its user comes back, with the last id in the header."""
    url = f"http://127.0.0.1:{push.port}/subscribe/sse?channel=sse:httpx"
    headers = {"Authorization": f"Bearer {push.token('httpx')}"}
    with httpx.Client(headers=headers, timeout=5) as client:
        with connect_sse(client, "GET", url) as source:
            events = source.iter_sse()
            hello = next(events)
            assert (hello.event, hello.json()["type"]) == ("control", "hello")
            for each in HOSTILE:
                push.api("publish", channel="sse:httpx", data=each)
            taken = [next(events) for _ in HOSTILE]
        assert [event.json()["data"] for event in taken] == HOSTILE
        push.api("publish", channel="sse:httpx", data="last")
        with connect_sse(client, "GET", url, headers={"Last-Event-ID": taken[-1].id}) as source:
            told = [event.json() for event in islice(source.iter_sse(), 3)]
    assert [each.get("type", each.get("data")) for each in told] == ["hello", "recovered", "last"]
