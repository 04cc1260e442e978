"""Revocations: whom they mean, which of two wins, and when they may be forgotten."""

import pytest

from push_server.revocations import SESSION, TOKEN, USER, Revocation, Revocations

ALICE = {"user": "alice", "session": "s1", "token_id": "t1", "issued": 100.0}


def test_the_second_of_a_logout_is_meant_to_its_end() -> None:
    # The signature of the logout has whole seconds; a token may have more.
    revocation = Revocation(USER, "alice", 100, 1000)
    assert revocation.covers("alice", "", "", 100.9)
    assert not revocation.covers("alice", "", "", 101)


@pytest.mark.parametrize(
    ("kind", "value", "before", "covered"),
    [
        (SESSION, "s1", 100, True),
        (SESSION, "s2", 100, False),
        (USER, "alice", 100, True),
        (USER, "alice", 99.9, False),
        (USER, "bob", 100, False),
        (TOKEN, "t1", 100, True),
        (TOKEN, "s1", 100, False),
        (SESSION, "alice", 100, False),
    ],
)
def test_whom_one_means(kind: str, value: str, before: float, covered: bool) -> None:
    revocation = Revocation(kind, value, before, 1000)
    everyone = Revocations()
    everyone.add(revocation)
    assert revocation.covers(**ALICE) is covered  # type: ignore[arg-type]
    assert everyone.covers(**ALICE) is covered  # type: ignore[arg-type]


def test_an_absent_claim_is_never_meant() -> None:
    revocations = Revocations()
    for kind in (SESSION, TOKEN):
        revocations.add(Revocation(kind, "", 1000, 1000))
    assert not revocations.covers("alice", "", "", 100)


def test_the_later_time_wins_in_either_order() -> None:
    early, late = Revocation(USER, "alice", 50, 500), Revocation(USER, "alice", 200, 700)
    for order in ([early, late], [late, early]):
        revocations = Revocations()
        for revocation in order:
            revocations.add(revocation)
        assert revocations.covers("alice", "", "", 200)
        assert not revocations.covers("alice", "", "", 201)
        assert len(revocations) == 1


def test_what_no_token_can_outlive_is_forgotten() -> None:
    revocations = Revocations()
    for number in range(10):
        revocations.add(Revocation(SESSION, f"s{number}", 100, 1000 + number))
    revocations.forget(1000)
    assert len(revocations) == 10
    revocations.forget(1004.5)
    assert len(revocations) == 5
    assert not revocations.covers("x", "s4", "", 100)
    assert revocations.covers("x", "s5", "", 100)
    revocations.forget(2000)
    assert len(revocations) == 0


def test_one_that_is_renewed_again_and_again_keeps_no_other() -> None:
    revocations = Revocations()
    for day in range(100):
        revocations.forget(day)
        revocations.add(Revocation(USER, "bot", day, day + 7))
        revocations.add(Revocation(SESSION, f"s{day}", 100, day + 7))
    assert len(revocations) == 9
    assert revocations.covers("bot", "", "", 99)
    assert not revocations.covers("bot", "", "", 100)
    # One that ends before the one it replaces is forgotten, too, and once.
    revocations.add(Revocation(USER, "bot", 100, 101))
    revocations.forget(1000)
    assert len(revocations) == 0
