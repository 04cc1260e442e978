"""A login session of WordPress is a push session: what ends it, and what does not."""

import time

import pytest
from waiting import PROMPT, wait_for

from wordpress.site import Visitor, WordPress
from wordpress.story import AJAX, listening, logout, the_list, told


def test_a_logout_ends_one_session_and_leaves_the_other(site: WordPress) -> None:
    here, there = site.visitor("bob"), site.visitor("bob")
    token = here.state()["token"]
    with listening(site, here) as one, listening(site, there) as other:
        logout(here)
        begin = time.monotonic()
        one.control("revoked")
        one.until_end()
        assert time.monotonic() - begin < PROMPT
        assert told(site, other) == []
        assert site.push.get("/subscribe/poll", token=token).status == 401
        assert there.state()["token"]


def test_sessions_that_are_ended_elsewhere_end_here(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    here, there = site.visitor("bob"), site.visitor("bob")
    with listening(site, here) as one, listening(site, there) as other:
        site.probe(
            f"WP_Session_Tokens::get_instance({ids['bob']})->destroy_others(wp_get_session_token());",
            there,
        )
        one.control("revoked")
        assert told(site, other) == []
    with listening(site, there) as other:
        site.probe("WP_Session_Tokens::destroy_all_for_all_users();")
        other.control("revoked")
    people.update({name: site.visitor(name) for name in people})


@pytest.mark.parametrize("code", [
    "return wp_update_user(['ID' => {id}, 'user_pass' => 'carol']);",
    "reset_password(get_userdata({id}), 'carol');",
])
def test_a_new_password_ends_all_sessions(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int], code: str
) -> None:
    here, there = site.visitor("carol"), site.visitor("carol")
    with listening(site, here) as one, listening(site, there) as other:
        site.probe(code.replace("{id}", str(ids["carol"])), people["admin"])
        for stream in (one, other):
            stream.control("revoked")
            stream.until_end()
    assert here.get(f"{AJAX}?action=push_server_state").status == 401
    people["carol"] = site.visitor("carol")
    wait_for_a_token(site, people["carol"])


def wait_for_a_token(site: WordPress, visitor: Visitor) -> None:
    """What was issued in the second of a revocation is refused, and asked for again."""
    wait_for(
        lambda: site.push.get("/subscribe/poll", token=visitor.state()["token"]).status == 200,
        "a token is accepted again",
    )


def test_another_role_ends_tokens_but_not_the_login(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    with listening(site, people["bob"]) as bob:
        # Saving a profile without a change ends nothing.
        site.probe(f"(new WP_User({ids['bob']}))->set_role('subscriber');", people["admin"])
        assert told(site, bob) == []
        # Whatever becomes of what else is to be done after the response.
        site.probe(
            f"""
            add_action('push_server_notified', static fn () => exit);
            push_notify(wp_create_user('doomed', 'doomed', 'doomed@wp.test'), 'Welcome');
            (new WP_User({ids['bob']}))->add_role('editor');
            """,
            people["admin"],
        )
        bob.control("revoked")
    site.probe(f"(new WP_User({ids['bob']}))->set_role('subscriber');", people["admin"])
    site.settle()
    wait_for_a_token(site, people["bob"])


def test_rights_that_change_twice_in_a_long_request(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    token = site.probe(
        f"""
        $user = new WP_User({ids['bob']});
        $user->add_role('editor');
        // An import or a queue goes on; meanwhile a page of his has asked for its next token.
        for ($second = time(); time() === $second;) usleep(10000);
        $token = Push_Server_Client::token($user, 'a session', 60);
        $user->remove_role('editor');
        return $token;
        """
    )
    site.settle()
    assert site.push.get("/subscribe/poll", token=site.push.remember(token)).status == 401
    wait_for_a_token(site, people["bob"])


def test_a_deleted_user_is_gone_everywhere(site: WordPress, people: dict[str, Visitor]) -> None:
    number = site.probe(
        "$id = wp_create_user('zed', 'zed', 'zed@wp.test');"
        "push_notify($id, 'Welcome'); return $id;"
    )
    zed = site.visitor("zed")
    site.settle()
    assert the_list(zed) == ["Welcome"]
    wait_for_a_token(site, zed)
    with listening(site, zed) as stream:
        site.probe(
            "require_once ABSPATH . 'wp-admin/includes/user.php';"
            f"return wp_delete_user({number});",
            people["admin"],
        )
        stream.control("revoked")
    assert site.sql(f"SELECT id FROM wp_push_server_inbox WHERE user_id = {number}") == []
