"""Fixtures of the tests of the WordPress plugin; `wordpress` itself is in tests/conftest.py."""

from collections.abc import Iterator

import pytest

from wordpress.site import Visitor, WordPress


@pytest.fixture
def site(wordpress: WordPress) -> Iterator[WordPress]:
    """The site, with its own push server when the test is over."""
    yield wordpress
    wordpress.configure(**wordpress.settings())


@pytest.fixture(scope="session")
def people(wordpress: WordPress) -> dict[str, Visitor]:
    """One browser for each user, for tests that leave him logged in."""
    names = ("admin", "alice", "bob", "carol", "dora", "eve")
    return {name: wordpress.visitor(name) for name in names}


@pytest.fixture(scope="session")
def post(wordpress: WordPress) -> int:
    """The post of alice."""
    return int(wordpress.sql("SELECT ID FROM wp_posts WHERE post_name = 'hello-alice'")[0][0])


@pytest.fixture(scope="session")
def ids(wordpress: WordPress) -> dict[str, int]:
    """The users' ids, by name."""
    rows = wordpress.sql("SELECT user_login, ID FROM wp_users")
    return {name: int(number) for name, number in rows}
