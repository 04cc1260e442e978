"""The numbers of the promises, spelled out.

Other tests see that a limit holds, most of them with the name of the constant; here stands what it
is. Who changes one changes what the docs promise, and what clients and proxies rely on. Settings
have their defaults in `golden/defaults.toml`.
"""

from importlib import import_module

import pytest

from push_server.channels import Namespace

NUMBERS = {
    # Before anybody is known.
    "front.listeners.HEADER_BYTES": 16_384,
    "front.channel.BODY_FACTOR": 1.5,  # of the ten seconds for a head
    "heads.HEADER_COUNT": 64,
    "heads.TARGET_BYTES": 12_288,
    "doors.lobby.CONNECT_SECONDS": 10,
    "doors.lobby.CONNECT_BYTES": 32_768,
    "doors.lobby.STRANGERS_SHARE": 10,
    "server.DESCRIPTOR_SHARE": 0.8,
    # Tokens, tickets, signatures.
    "tokens.TOKEN_LIMIT": 4096,
    "tokens.LEEWAY": 60,
    "tokens.TICKET_SECONDS": 30,
    "signatures.WINDOW": 300,
    "signatures.KEY_BYTES": 24,
    # One client.
    "doors.orders.CHANNELS_LIMIT": 256,
    "connection.MIN_DRAIN_RATE": 1024,
    "connection.MIN_DRAIN_SECONDS": 60,
    "sockets.UNACKNOWLEDGED_SECONDS": 20,
    "websocket.MESSAGE_SECONDS": 10,
    "websocket.FRAMES_PER_SECOND": 200,
    "websocket.FRAMES_AT_ONCE": 1000,
    "doors.bayeux.GLOBS_LIMIT": 16,
    "bayeux.requests.MESSAGES_LIMIT": 1000,
    "subscriber.POLL_BYTES": 262_144,
    "doors.subscribe.POLL_SECONDS": 25,
    "doors.subscribe.POLL_SECONDS_LIMIT": 60,
    "admission.RETRY_SECONDS": 30,
    # What is published, and what is kept of it.
    "publications.ID_LIMIT": 64,
    "doors.request.JSON_DEPTH": 32,
    "doors.internal.BATCH_LIMIT": 1000,
    "doors.commands.HISTORY_LIMIT": 1000,
    "doors.commands.PRESENCE_LIMIT": 10_000,
    "doors.commands.ANSWERS_BYTES": 33_554_432,
    "brokers.base.ID_SECONDS": 86_400,
    "brokers.sqlite_space.LOW_WATER": 67_108_864,
    # When something fails.
    "disruptions.DEGRADED_SECONDS": 300,
    "crossing.SILENCE_SECONDS": 30,
    "log.LINES_PER_MINUTE": 10,
    "log.LINES_IN_ALL": 1000,
    "log.FIELD_LIMIT": 512,
}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number(name: str) -> None:
    module, _, constant = name.rpartition(".")
    assert getattr(import_module(f"push_server.{module}"), constant) == NUMBERS[name]


def test_what_is_kept_of_a_channel() -> None:
    keep = Namespace()
    assert (keep.history_size, keep.history_ttl) == (1000, 600)
    assert keep.history_bytes == 16 * 2**20
