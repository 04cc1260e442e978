"""Who is told what on a real WordPress, and who is not."""

import re

from wordpress.site import Visitor, WordPress
from wordpress.story import AJAX, OPTIONS, comment, listening, logout, the_list, titles, told

# Pages and tokens


def test_an_anonymous_page_is_as_if_the_plugin_were_not_there(site: WordPress) -> None:
    for path in ("/hello-alice/", "/"):
        with_plugin, without = site.visitor().get(path), site.visitor(off=True).get(path)
        assert with_plugin.text == without.text.replace(str(site.off_port), str(site.port))
        different = {"Date", "Link", "Origin-Agent-Cluster"}
        names = set(with_plugin.headers.keys()) ^ set(without.headers.keys())
        assert names <= different
        assert "Cache-Control" not in with_plugin.headers
        assert "Set-Cookie" not in with_plugin.headers
    block = site.visitor().get("/members/").text
    assert "Log in to see your notifications." in block
    assert "data-push-server" not in block


def test_two_users_have_two_tokens_and_pages_have_none(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    states = {name: people[name].state() for name in ("alice", "bob")}
    for name, state in states.items():
        assert state["user"] == ids[name]
        page = people[name].get("/members/").text
        assert state["token"] not in page
        assert state["nonce"] not in page
        with site.push.stream(site.push.remember(state["token"])) as stream:
            assert stream.hello["user"] == str(ids[name])
            assert stream.hello["channels"] == [f"user:{ids[name]}"]
    parts = re.compile(r"pushServerSettings = .*|<[^>]*push-server[^>]*>")
    ours = [parts.findall(people[name].get("/members/").text) for name in states]
    assert ours[0] == ours[1]
    assert len(ours[0]) > 5


def test_nobody_else_gets_a_token(site: WordPress, people: dict[str, Visitor]) -> None:
    path = f"{AJAX}?action=push_server_state"
    assert site.visitor().get(path).status == 401
    forged = site.visitor()
    forged.cookies["wordpress_logged_in_test"] = "alice%7C9999999999%7Cforged%7Cdeadbeef"
    assert forged.get(path).status == 401
    foreign = people["alice"].get(path, {"Origin": "http://evil.example"})
    assert "Access-Control-Allow-Origin" not in foreign.headers
    assert "no-cache" in foreign.headers["Cache-Control"]
    gone = site.visitor("carol")
    cookies = dict(gone.cookies)
    logout(gone)
    gone.cookies = cookies
    assert gone.get(path).status == 401


def test_what_changes_something_needs_a_nonce(people: dict[str, Visitor]) -> None:
    alice = people["alice"]
    for action in ("seen", "ping"):
        path = f"{AJAX}?action=push_server_{action}"
        assert alice.post(path, seen=1, ping="x").status == 403
        assert alice.post(path, seen=1, ping="x", nonce="0123456789").status == 403
    nonce = alice.state()["nonce"]
    assert alice.post(f"{AJAX}?action=push_server_ping", ping="x", nonce=nonce).status == 403
    assert people["bob"].get(OPTIONS).status == 403


# Comments


def test_a_comment_reaches_the_author_and_nobody_else(
    site: WordPress, people: dict[str, Visitor], post: int, ids: dict[str, int]
) -> None:
    before = the_list(people["carol"])
    with (
        listening(site, people["alice"]) as alice,
        listening(site, people["bob"]) as bob,
        listening(site, people["carol"]) as carol,
    ):
        comment(people["bob"], post, "<b>Nice</b> &amp; &lt;script&gt; “good”")
        (item,) = told(site, alice)
        assert item["title"] == "Bob commented on “Hello of Alice”"
        assert item["text"].startswith("Nice & <script> “good”")
        assert (item["kind"], item["sender"], item["type"]) == ("comment", "Bob", "notification")
        assert f"{site.origin}/hello-alice/#comment-" in item["url"]
        assert told(site, bob) == told(site, carol) == []
        comment(people["alice"], post, "My own words.")
        assert told(site, alice) == []
    assert people["alice"].state()["items"][0] == {k: v for k, v in item.items() if k != "type"}
    assert the_list(people["carol"]) == before


def test_an_unapproved_comment_notifies_nobody_until_it_is_approved(
    site: WordPress, people: dict[str, Visitor], post: int
) -> None:
    someone, before = "Zoe", the_list(people["carol"])
    with listening(site, people["alice"]) as alice, listening(site, people["carol"]) as carol:
        comment(site.visitor(), post, "@carol look", author=someone)
        comment(site.visitor(), post, "buy pills", author=someone)
        assert told(site, alice) == told(site, carol) == []
        rows = site.sql("SELECT comment_ID FROM wp_comments ORDER BY comment_ID DESC LIMIT 2")
        spam, good = (int(row[0]) for row in rows)
        approve = "return wp_set_comment_status({}, '{}');"
        site.probe(approve.format(spam, "spam"), people["admin"])
        site.probe(approve.format(good, "approve"), people["admin"])
        assert titles(site, alice) == ["Zoe commented on “Hello of Alice”"]
        assert titles(site, carol) == ["Zoe mentioned you in a comment on “Hello of Alice”"]
        site.probe(approve.format(good, "approve"), people["admin"])
        assert told(site, alice) == []
    assert the_list(people["carol"])[0].startswith("Zoe")
    site.probe(approve.format(good, "hold"), people["admin"])
    site.settle()
    assert the_list(people["carol"]) == before


def test_a_comment_that_is_held_back_at_once_notifies_nobody(
    site: WordPress, people: dict[str, Visitor], post: int
) -> None:
    """As a spam filter does that looks at a comment when it is stored."""
    with listening(site, people["alice"]) as alice:
        assert site.probe(
            f"""
            $id = wp_insert_comment(['comment_post_ID' => {post}, 'comment_approved' => 1,
                'comment_author' => 'Zoe', 'comment_content' => 'Cheap watches']);
            return wp_set_comment_status($id, 'hold');
            """
        )
        assert told(site, alice) == []


def test_whoever_has_two_reasons_is_told_once(
    site: WordPress, people: dict[str, Visitor], post: int
) -> None:
    comment(people["alice"], post, "First.")
    parent = int(site.sql("SELECT MAX(comment_ID) FROM wp_comments")[0][0])
    with listening(site, people["alice"]) as alice, listening(site, people["carol"]) as carol:
        comment(people["bob"], post, "Hi @alice, @Carol, a@carol.example and @bob", parent=parent)
        assert titles(site, alice) == ["Bob replied to your comment on “Hello of Alice”"]
        assert titles(site, carol) == ["Bob mentioned you in a comment on “Hello of Alice”"]


def test_a_save_that_is_rolled_back_publishes_nothing(
    site: WordPress, people: dict[str, Visitor], post: int
) -> None:
    with listening(site, people["alice"]) as alice:
        left = site.probe(
            f"""
            global $wpdb;
            $wpdb->query('START TRANSACTION');
            $id = wp_new_comment(['comment_post_ID' => {post}, 'comment_content' => 'gone',
                'user_id' => get_current_user_id(), 'comment_author' => 'Bob',
                'comment_author_email' => 'bob@wp.test', 'comment_author_url' => '']);
            $post = wp_insert_post(['post_title' => 'gone', 'post_status' => 'publish',
                'post_content' => '@alice', 'post_author' => get_current_user_id()]);
            $wpdb->query('ROLLBACK');
            return [$id, $post];
            """,
            people["bob"],
        )
        assert all(left)
        assert told(site, alice) == []


def test_comments_come_on_other_ways_too(
    site: WordPress, people: dict[str, Visitor], post: int
) -> None:
    rest = f"""
        $request = new WP_REST_Request('POST', '/wp/v2/comments');
        $request->set_body_params(['post' => {post}, 'content' => 'By REST.']);
        return rest_do_request($request)->get_status();
    """
    import_one = f"""
        define('WP_IMPORTING', true);
        return wp_insert_comment(['comment_post_ID' => {post}, 'comment_content' => 'Old.',
            'comment_author' => 'Zoe', 'comment_approved' => 1]);
    """
    note = f"""
        return wp_insert_comment(['comment_post_ID' => {post}, 'comment_type' => 'order_note',
            'comment_content' => 'For the shop alone.', 'comment_approved' => 1]);
    """
    with listening(site, people["alice"]) as alice:
        assert site.probe(rest, people["bob"]) == 201
        assert titles(site, alice) == ["Bob commented on “Hello of Alice”"]
        assert site.probe(import_one)
        assert site.probe(note)
        assert told(site, alice) == []


# What may be viewed


def test_nobody_is_told_of_what_he_may_not_view(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    with listening(site, people["bob"]) as bob, listening(site, people["eve"]) as eve:
        for status, password in [("private", ""), ("draft", ""), ("publish", "x")]:
            site.probe(
                f"""
                $id = wp_insert_post(['post_title' => 'Secret', 'post_author' => {ids["alice"]},
                    'post_status' => '{status}', 'post_password' => '{password}',
                    'post_content' => 'For @bob and @eve.']);
                return push_notify([{ids["bob"]}, {ids["eve"]}], 'Look', ['post' => $id]);
                """,
                people["admin"],
            )
        assert told(site, bob) == []
        # Eve is an editor: she may view all three.
        assert titles(site, eve).count("Look") == 3


def test_a_notification_goes_when_its_post_becomes_private(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    code = f"""
        $id = wp_insert_post(['post_title' => 'Open', 'post_status' => 'publish',
            'post_content' => 'Hello @bob.', 'post_author' => {ids["alice"]}]);
        return $id;
    """
    number = site.probe(code, people["admin"])
    site.settle()
    assert the_list(people["bob"])[0] == "Alice mentioned you in “Open”"
    update = f"return wp_update_post(['ID' => {number}, 'post_status' => '%s']);"
    site.probe(update % "private", people["admin"])
    assert "Alice mentioned you in “Open”" not in the_list(people["bob"])
    site.probe(update % "publish", people["admin"])
    assert the_list(people["bob"])[0] == "Alice mentioned you in “Open”"
    site.probe(f"return wp_delete_post({number}, true);", people["admin"])
    assert site.sql(f"SELECT id FROM wp_push_server_inbox WHERE post_id = {number}") == []


def test_a_post_on_its_way_to_the_readers(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    with (
        listening(site, people["dora"]) as dora,
        listening(site, people["eve"]) as eve,
        listening(site, people["alice"]) as alice,
    ):
        number = site.probe(
            "return wp_insert_post(['post_title' => 'Draft of Dora', 'post_status' => 'pending',"
            " 'post_content' => 'With @alice.', 'post_author' => get_current_user_id()]);",
            people["dora"],
        )
        (review,) = told(site, eve)
        assert review["title"] == "Dora asks for a review of “Draft of Dora”"
        assert f"post.php?post={number}&action=edit" in review["url"]
        # An author cannot edit what others write, and has nothing to read yet.
        assert told(site, alice) == told(site, dora) == []
        update = "return wp_update_post(['ID' => {}, 'post_status' => '{}']);"
        site.probe(update.format(number, "draft"), people["eve"])
        assert titles(site, dora) == ["Your post “Draft of Dora” is a draft again"]
        site.probe(update.format(number, "publish"), people["eve"])
        assert titles(site, dora) == ["Your post “Draft of Dora” is published"]
        assert titles(site, alice) == ["Dora mentioned you in “Draft of Dora”"]
        site.probe(f"return wp_trash_post({number});", people["eve"])
        assert titles(site, dora) == ["Your post “Draft of Dora” was moved to the trash"]
        assert told(site, eve) == []


def test_a_post_that_was_planned(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    with listening(site, people["alice"]) as alice:
        number = site.probe(
            "return wp_insert_post(['post_title' => 'Later', 'post_status' => 'future',"
            " 'post_date' => gmdate('Y-m-d H:i:s', time() + 3600), 'post_content' => '@bob',"
            f" 'post_author' => {ids['alice']}]);",
            people["alice"],
        )
        assert told(site, alice) == []
        site.probe(f"return wp_publish_post({number});")
        assert titles(site, alice) == ["Your post “Later” is published"]


# Developers


SOON = "Soon (order) & <more>"


def test_what_developers_can_do(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    seen = people["carol"].state()
    with listening(site, people["carol"]) as carol:
        result = site.probe(
            f"""
            add_action('push_server_notified', function ($item, $user) {{
                update_option('probe_notified', [$item['title'], $user]);
            }}, 10, 2);
            add_filter('push_server_notification', function ($words, $kind, $user) {{
                if ($kind === 'silent') return false;
                $words['text'] .= "\n($kind) & <more>";
                return $words + ['user_id' => 1, 'of their own' => 'ignored'];
            }}, 10, 3);
            $once = ['kind' => 'order', 'source' => 'order-7'];
            return [
                push_notify({ids["carol"]}, 'First', $once),
                push_notify({ids["carol"]}, "On\\nits <i>way</i>", $once + ['text' => 'Soon']),
                push_notify({ids["carol"]}, 'Silent', ['kind' => 'silent']),
                push_notify({ids["carol"]}, ' '),
                push_notify([], 'Nobody'),
                push_publish('user:{ids["carol"]}', ['type' => 'mine']),
            ];
            """,
        )
        assert result == [True, True, True, False, False, True]
        mine, item = told(site, carol)
    assert mine == {"type": "mine"}
    # The second one replaced the first in the same request: once is once.
    assert (item["kind"], item["title"], item["text"]) == ("order", "On its way", SOON)
    assert site.probe("return get_option('probe_notified');") == ["On its way", ids["carol"]]
    again = "['kind' => 'order', 'source' => 'order-7']"
    site.probe(f"return push_notify({ids['carol']}, 'Third', {again});")
    # The ids of many systems differ by upper and lower case alone.
    other = again.replace("'order-7'", "'Order-7'")
    # Letters and emoji that are joined, and an emoji that PCRE does not know yet.
    title = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469\U0001faea"
    site.probe(f"return push_notify({ids['carol']}, '\u202e{title}', {other});")
    site.settle()
    state = people["carol"].state()
    assert len(state["items"]) == len(seen["items"]) + 2
    assert state["items"][0]["title"] == title
    newest = state["items"][0]["id"]
    with listening(site, people["carol"]) as other_page:
        answer = people["carol"].post(
            f"{AJAX}?action=push_server_seen", seen=newest + 1000, nonce=state["nonce"]
        )
        assert answer.json == {"seen": newest}
        assert told(site, other_page) == [{"type": "seen", "seen": newest}]
    assert people["carol"].state()["seen"] == newest


def test_a_developers_channels_are_in_the_token(
    site: WordPress, people: dict[str, Visitor]
) -> None:
    plugin = site.folder / "www/wp-content/mu-plugins/channels.php"
    plugin.write_text(
        "<?php add_filter('push_server_channels', fn ($channels, $user) => "
        "[...$channels, 'stock:*', 'of:' . $user->user_login], 10, 2);"
    )
    try:
        with listening(site, people["bob"], "stock:1", "of:bob", "of:carol") as stream:
            assert stream.hello["denied"] == ["of:carol"]
    finally:
        plugin.unlink()


def test_everybody_reads_his_own_language(
    site: WordPress, people: dict[str, Visitor], post: int, ids: dict[str, int]
) -> None:
    """The title is made when the recipient's locale is set, not that of whoever writes."""
    site.probe(f"return update_user_meta({ids['alice']}, 'locale', 'de_DE');")
    plugin = site.folder / "www/wp-content/mu-plugins/locale.php"
    plugin.write_text(
        "<?php add_filter('gettext_push-server', fn ($text) => "
        "get_locale() . ': ' . $text); add_filter('get_available_languages', fn () => ['de_DE']);"
    )
    try:
        with listening(site, people["alice"]) as alice:
            comment(people["bob"], post, "Guten Tag.")
            assert titles(site, alice) == ["de_DE: Bob commented on “Hello of Alice”"]
    finally:
        plugin.unlink()
        site.probe(f"return delete_user_meta({ids['alice']}, 'locale');")


def test_what_is_published_after_the_end_is_sent(
    site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    with listening(site, people["carol"]) as carol:
        site.probe(
            "register_shutdown_function(function () {"
            f" push_publish('user:{ids['carol']}', ['type' => 'late']);"
            "});"
        )
        assert told(site, carol) == [{"type": "late"}]
