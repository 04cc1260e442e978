"""Whether what is sent arrives at once, and whether connections may stay open."""

import base64
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from push_server.doctor import keys, probe
from push_server.doctor.findings import (
    NGINX,
    NGINX_PROXY,
    Finding,
    doubtful,
    good,
    skipped,
    wrong,
)
from push_server.doctor.visit import CHANNEL, Visit

HELLO_SECONDS = 2.0
"""A stream that says nothing for so long, while a poll was answered, is held back."""
CHUNKS = 3
CHUNK_SECONDS = 1.0
LONGEST_POLL = 60
SAFE = 75
"""What a proxy should wait: the longest poll, and a margin."""


def _credentials(visit: Visit) -> dict[str, str]:
    # As browsers do: whether a proxy compresses a stream is a part of what is looked for.
    return {"Authorization": f"Bearer {visit.token()}", "Accept-Encoding": "gzip, deflate, br"}


def streaming(visit: Visit) -> Iterator[Finding]:
    """Whether each piece of a stream arrives when it is sent."""
    if not visit.token_taken:
        yield skipped(keys.NO_TOKEN)
        return
    began = time.monotonic()
    poll = probe.ask(visit.origin, "/subscribe/poll", _credentials(visit))
    if poll.status != 200:
        yield wrong(f"/subscribe/poll: {poll}", "status 200")
        return
    needed = time.monotonic() - began
    expected = f"the first line within {HELLO_SECONDS:g} s (a poll took {needed:.2f} s)"
    held = "proxy_buffering off;"
    target = "/subscribe/stream" + ("" if visit.given_token else f"?channel={CHANNEL}")
    try:
        with probe.stream(visit.origin, target, _credentials(visit),
                          timeout=HELLO_SECONDS) as stream:
            coding = stream.head.headers.get("Content-Encoding", "identity")
            if coding != "identity":
                yield wrong(f"a proxy compresses the stream ({coding}) and waits until it is worth"
                            " it", "the stream as it was sent", NGINX, "gzip off;")
                return
            if stream.head.status != 200:
                yield wrong(f"/subscribe/stream: {stream.head}", "status 200")
                return
            hello = stream.line(HELLO_SECONDS)
            visit.heartbeat = float(hello.get("heartbeat", visit.heartbeat))
            yield from _chunks(visit, stream, hello)
    except TimeoutError:
        yield wrong("the answer is held back on the way: nothing of a stream came in"
                    f" {HELLO_SECONDS:g} s", expected, NGINX_PROXY, held)
    except (EOFError, *probe.FAILURES) as error:
        yield wrong(f"the stream broke off: {probe.reason(error)}", "a stream that stays open",
                    NGINX_PROXY, f"proxy_read_timeout {SAFE}s;")


def _chunks(visit: Visit, stream: probe.Stream, hello: dict[str, Any]) -> Iterator[Finding]:
    """Publications on the open stream, one by one, each of which must come by itself."""
    if CHANNEL not in hello.get("channels", ()) or not visit.api_key or visit.api is None:
        yield good("the first line of a stream comes at once")
        return
    slowest = 0.0
    for number in range(CHUNKS):
        began = time.monotonic()
        try:
            answer = keys.call(visit, "publish", {
                "channel": CHANNEL, "data": number, "id": secrets.token_hex(8),
            })
        except probe.FAILURES as error:
            yield good(f"the first line of a stream comes at once (no more: {probe.reason(error)})")
            return
        if answer.status != 200:
            yield good(f"the first line of a stream comes at once (publishing: {answer})")
            return
        while stream.line(HELLO_SECONDS).get("channel") != CHANNEL:
            pass
        slowest = max(slowest, time.monotonic() - began)
    seen = f"{CHUNKS} publications came one by one, the slowest {1000 * slowest:.0f} ms after"
    yield good(f"{seen} it was sent") if slowest < CHUNK_SECONDS else wrong(
        f"{seen} it was sent", f"less than {CHUNK_SECONDS:g} s", NGINX_PROXY, "proxy_buffering off;"
    )


def idle(visit: Visit) -> Iterator[Finding]:
    """How long a silent connection lives on the way, by a poll that nobody answers."""
    if not visit.idle:
        yield skipped(f"--idle tries it, which takes {LONGEST_POLL} seconds")
        return
    if not visit.token_taken:
        yield skipped(keys.NO_TOKEN)
        return
    with ThreadPoolExecutor(2) as both:
        silent, beating = both.submit(_silence, visit), both.submit(_heartbeats, visit)
        yield silent.result()
        yield beating.result()


def _silence(visit: Visit) -> Finding:
    first = probe.ask(visit.origin, "/subscribe/poll", _credentials(visit)).json
    target = f"/subscribe/poll?timeout={LONGEST_POLL}&since={first.get('cursor', '')}"
    began = time.monotonic()
    try:
        answer = probe.ask(
            visit.origin, target, _credentials(visit), timeout=LONGEST_POLL + probe.PATIENCE
        )
        said = str(answer)
        if answer.status == 200 and "cursor" in answer.json:
            return good(f"the way keeps a connection that is silent for {LONGEST_POLL} seconds")
    except probe.FAILURES as error:
        said = probe.reason(error)
    seconds = time.monotonic() - began
    return wrong(f"the way cuts a silent connection after {seconds:.0f} s ({said})",
                 f"{LONGEST_POLL} s or more: the longest poll", NGINX_PROXY,
                 f"proxy_read_timeout {SAFE}s;")


def _heartbeats(visit: Visit) -> Finding:
    began = time.monotonic()
    beats = 0
    try:
        with probe.stream(visit.origin, "/subscribe/stream", _credentials(visit)) as stream:
            while beats < 2:
                beats += stream.line(2.2 * visit.heartbeat).get("type") == "ping"
    except (EOFError, *probe.FAILURES) as error:
        return wrong(f"a stream ended after {time.monotonic() - began:.0f} s"
                     f" ({probe.reason(error)})", f"a heartbeat every {visit.heartbeat:g} s",
                     NGINX_PROXY, f"proxy_read_timeout {SAFE}s;")
    return good(f"heartbeats keep a stream open, one every {visit.heartbeat:g} s")


def websocket(visit: Visit) -> Iterator[Finding]:
    """Whether the way lets an upgrade to WebSocket pass."""
    if not visit.token_taken:
        yield skipped(keys.NO_TOKEN)
        return
    headers = {
        **_credentials(visit),
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
    }
    with probe.stream(visit.origin, "/subscribe/ws", headers) as stream:
        head = stream.head
    if head.status == 101:
        yield good("WebSocket passes")
    elif head.status == 404:
        yield skipped("this server has no WebSocket")
    elif head.status == 426:
        yield doubtful("the header Upgrade does not arrive; browsers use streams", "status 101",
                       NGINX_PROXY,
                       "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"
                       ' proxy_set_header Connection "upgrade";')
    else:
        yield doubtful(f"/subscribe/ws: {head}; browsers use streams", "status 101",
                       NGINX_PROXY, "proxy_http_version 1.1;")
