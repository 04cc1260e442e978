"""A network of sites: one bell, one push server, and what happens on each site stays apart."""

from collections.abc import Iterator

import pytest

from wordpress.site import Visitor, WordPress, missing, started
from wordpress.story import comment, listening, the_list, told

SETTINGS = "/wp-admin/network/settings.php?page=push-server"


@pytest.fixture(scope="module")
def network() -> Iterator[WordPress]:
    if reason := missing():
        pytest.skip(f"WordPress {reason}")
    with started(is_network=True) as site:
        yield site


@pytest.fixture(scope="module")
def members(network: WordPress) -> dict[str, Visitor]:
    return {name: network.visitor(name) for name in ("admin", "alice", "bob")}


@pytest.fixture(scope="module")
def elsewhere(network: WordPress) -> int:
    """The post of alice on the second site."""
    return int(network.sql("SELECT ID FROM wp_2_posts WHERE post_name = 'elsewhere'")[0][0])


def test_one_bell_for_all_sites(
    network: WordPress, members: dict[str, Visitor], elsewhere: int
) -> None:
    with listening(network, members["alice"]) as alice:
        comment(members["bob"], elsewhere, "From afar", site="/second")
        (item,) = told(network, alice)
        assert item["title"] == "Bob commented on “Elsewhere”"
        assert item["url"].startswith("http://www.wp.test/second/")
    assert the_list(members["alice"])[0] == item["title"], "on the first site, too"
    second = members["alice"].get("/second/wp-admin/admin-ajax.php?action=push_server_state").json
    assert second["items"][0]["title"] == item["title"]
    assert "pushServerSettings" in members["alice"].get("/second/elsewhere/").text


def test_what_becomes_private_on_one_site_is_gone_on_all(
    network: WordPress, members: dict[str, Visitor], elsewhere: int
) -> None:
    change = f"""
        switch_to_blog(2);
        wp_update_post(['ID' => {elsewhere}, 'post_status' => '%s', 'post_author' => %s]);
        restore_current_blog();
    """
    assert "Bob commented on “Elsewhere”" in the_list(members["alice"])
    network.probe(change % ("private", 1), members["admin"])
    assert "Bob commented on “Elsewhere”" not in the_list(members["alice"])
    alice = "get_user_by('login', 'alice')->ID"
    network.probe(change % ("publish", alice), members["admin"])
    assert "Bob commented on “Elsewhere”" in the_list(members["alice"])


def test_nobody_is_told_of_sites_that_are_not_his(
    network: WordPress, members: dict[str, Visitor], elsewhere: int
) -> None:
    """Dora has an account of the network and is no member of the second site."""
    dora = network.visitor("dora")
    with listening(network, dora) as stream:
        comment(members["bob"], elsewhere, "Hello @dora", site="/second")
        assert told(network, stream) == []


def test_the_settings_are_the_networks(network: WordPress, members: dict[str, Visitor]) -> None:
    assert "Test connection" in members["admin"].get(SETTINGS).text
    page = "/wp-admin/options-general.php?page=push-server"
    for path in (page, "/second" + page):
        assert members["admin"].get(path).status == 403
    assert members["alice"].get(SETTINGS).status == 403


def test_whoever_leaves_a_site_is_told_nothing_more_of_it(
    network: WordPress, members: dict[str, Visitor]
) -> None:
    with listening(network, members["alice"]) as alice:
        network.probe(
            "remove_user_from_blog(get_user_by('login', 'alice')->ID, 2);", members["admin"]
        )
        alice.control("revoked")
    assert "Bob commented on “Elsewhere”" not in the_list(members["alice"])


def test_a_site_that_is_deleted_takes_its_notifications_along(
    network: WordPress, members: dict[str, Visitor]
) -> None:
    network.probe(
        "switch_to_blog(2); push_notify(get_user_by('login', 'bob')->ID, 'Soon gone');"
        "restore_current_blog();"
    )
    network.settle()
    assert the_list(members["bob"]) == ["Soon gone"]
    network.probe("return wp_delete_site(2);", members["admin"])
    assert the_list(members["bob"]) == []
