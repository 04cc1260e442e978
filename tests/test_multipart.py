"""Live pictures: what `multipart` does beyond the contract of all transports."""

from collections.abc import Callable

import pytest
from contract import data, fresh, subscribe
from harness import PushServer
from wire_classic import picture

pytestmark = pytest.mark.usefixtures("unharmed")


@pytest.mark.parametrize("before", [0, 1, 2, 5])
def test_the_last_picture_is_there_at_once(push: PushServer, before: int) -> None:
    user = fresh("picture")
    channel = f"camera:{user}"
    for number in range(before):
        push.api("publish", channel=channel, data=picture(number))
    with subscribe(push, "multipart", push.token(user), channel) as reader:
        if before:
            assert data(reader, 1) == [picture(before - 1)]
        for number in range(20, 24):
            push.api("publish", channel=channel, data=f"not picture {number}")
            push.api("publish", channel=channel, data=picture(number))
            assert data(reader, 1) == [picture(number)]


@pytest.mark.parametrize(("size", "first"), [(0, 20), (1, 20), (2, 12)])
def test_the_last_picture_is_proved_by_the_one_before(
    push_server_factory: Callable[..., PushServer], size: int, first: int
) -> None:
    push = push_server_factory(namespace={"camera": {"history_size": size}})
    for number in (10, 11, 12):
        push.api("publish", channel="camera:1", data=picture(number))
    with subscribe(push, "multipart", push.token(), "camera:1") as reader:
        push.api("publish", channel="camera:1", data=picture(20))
        assert data(reader, 1) == [picture(first)]
