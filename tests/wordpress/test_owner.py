"""What the owner of a site sees: settings, "Test connection", Site Health, and the end."""

import html
import json
import re

import pytest
from ports import free_port

from wordpress.site import Visitor, WordPress
from wordpress.story import OPTIONS, comment, the_list

BAD_SETTINGS = [
    ({"PUSH_URL": "push.example.com"}, "PUSH_URL has no scheme"),
    ({"PUSH_URL": "http://push.example.com/path"}, "PUSH_URL is a scheme, a host"),
    ({"PUSH_API": "ftp://127.0.0.1"}, "PUSH_API has no scheme"),
    ({"PUSH_TOKEN_KEY": "short"}, "PUSH_TOKEN_KEY is too short"),
    ({"PUSH_API_KEY": "whsec_c2hvcnQ="}, "PUSH_API_KEY is too short"),
    ({"PUSH_API_KEY": "secret"}, "PUSH_API_KEY is no API key"),
]


@pytest.mark.parametrize(("wrong", "sentence"), BAD_SETTINGS)
def test_a_wrong_setting_is_named_on_the_page_and_once_in_the_log(
    site: WordPress, people: dict[str, Visitor], post: int, wrong: dict[str, str], sentence: str
) -> None:
    site.configure(**site.settings(**wrong))
    before = len(site.log)
    for _ in range(3):
        assert people["alice"].get("/hello-alice/").status == 200
        comment(people["bob"], post)
        state = people["alice"].state()
        assert (state["server"], state["token"]) == (None, None)
        assert state["items"]
    site.settle()
    (line,) = site.log[before:]
    assert line.startswith(f"Nothing is pushed: {sentence}")
    page = html.unescape(people["admin"].get(OPTIONS).text)
    assert page.count(sentence) >= 3, "above, at the field, and in the log"
    if "KEY" in sentence:
        assert f'value="{next(iter(wrong.values()))}"' not in page


def test_a_missing_setting_is_named(site: WordPress, people: dict[str, Visitor]) -> None:
    settings = site.settings()
    del settings["PUSH_TOKEN_KEY"]
    site.configure(**settings)
    assert "PUSH_TOKEN_KEY is missing" in people["admin"].get(OPTIONS).text


def test_what_cannot_be_published_is_named_once(site: WordPress) -> None:
    before = len(site.log)
    bad = ("'a b', 1", "'x', \"\\xff\"", "'x', str_repeat('x', 262144)")
    calls = ", ".join(f"push_publish({arguments})" for arguments in bad)
    for _ in range(3):
        assert site.probe(f"return [{calls}];") == [False, False, False]
    lines = site.log[before:]
    assert len(lines) == 3, lines
    assert '"a b"' in lines[0]
    assert "not UTF-8" in lines[1]
    assert "PUSH_MAX_BODY" in lines[2]


def form(page: str) -> dict[str, str]:
    """The fields of the settings form, as a browser would send them back."""
    first = page[page.index('<form method="post"'):].partition("</form>")[0]
    found = {}
    for field in re.findall(r"<input[^>]*>", first):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', field))
        chosen = attributes.get("type") not in ("checkbox", "radio") or "checked" in field
        if "name" in attributes and chosen and " disabled" not in field:
            found[attributes["name"]] = html.unescape(attributes.get("value", ""))
    return found


def test_settings_are_checked_before_they_are_saved(
    site: WordPress, people: dict[str, Visitor]
) -> None:
    site.configure()
    admin = people["admin"]
    assert "does nothing until it knows your push server" in admin.get("/wp-admin/plugins.php").text
    assert "pushServerSettings" not in admin.get("/hello-alice/").text
    values = {name.removeprefix("PUSH_").lower(): value for name, value in site.settings().items()}
    empty = form(admin.get(OPTIONS).text)
    wrong = {"url": "push.example.com", "token_key": "x"}
    refused = admin.post(OPTIONS, **{**empty, **values, **wrong})
    page = html.unescape(refused.text)
    assert "Nothing was saved" in page
    assert "PUSH_URL has no scheme" in page
    assert "PUSH_TOKEN_KEY is too short" in page
    assert 'value="push.example.com"' in page
    assert values["api_key"] not in page
    assert site.probe("return get_option('push_server');") is False
    saved = admin.post(OPTIONS, **{**empty, **values})
    assert "Settings saved." in saved.text
    assert values["api_key"] not in saved.text
    assert values["token_key"] not in saved.text
    assert people["alice"].state()["token"]
    # An empty field keeps the secret.
    again = form(admin.get(OPTIONS).text)
    assert again["token_key"] == again["api_key"] == ""
    del again["comment"]
    admin.post(OPTIONS, **again)
    stored = site.probe("return get_option('push_server');")
    assert stored["token_key"] == values["token_key"]
    assert (stored["comment"], stored["reply"]) == (False, True)
    assert admin.post(OPTIONS, **{**again, "_wpnonce": "0"}).status == 403
    site.probe("return delete_option('push_server');")


def results(page: str) -> dict[str, str]:
    """What "Test connection" has found, by name."""
    return dict(re.findall(r'id="push-server-check-(\w+)" data-status="(\w+)"', page))


def test_the_connection_is_tested(site: WordPress, people: dict[str, Visitor]) -> None:
    admin = people["admin"]
    nonce = form(admin.get(OPTIONS).text)["_wpnonce"]
    # The name of the push host is not known to this machine, so what goes there is skipped.
    address = f"http://127.0.0.1:{site.push.port}"
    site.configure(**site.settings(PUSH_URL=address))
    found = results(admin.post(OPTIONS, _wpnonce=nonce, test="1").text)
    assert found.pop("browser") == "waiting"
    for name in ("token_key", "api_key", "spool", "after_response"):
        assert found[name] == "ok", found
    assert "error" not in found.values(), found
    site.configure(**site.settings(PUSH_URL=address, PUSH_API=f"http://127.0.0.1:{free_port()}"))
    page = html.unescape(admin.post(OPTIONS, _wpnonce=nonce, test="1").text)
    assert "error" in results(page).values()
    assert "cannot be reached at PUSH_API" in page


def test_site_health(site: WordPress, people: dict[str, Visitor]) -> None:
    admin = people["admin"]
    path = "/wp-json/push-server/v1/connection"
    nonce = site.probe("return wp_create_nonce('wp_rest');", admin)
    site.configure(**site.settings(PUSH_URL=f"http://127.0.0.1:{site.push.port}"))
    good = admin.get(path, {"X-WP-Nonce": nonce}).json
    assert good["status"] in ("good", "recommended"), good
    site.configure(**site.settings(PUSH_API="http://127.0.0.1:1"))
    bad = admin.get(path, {"X-WP-Nonce": nonce}).json
    assert bad["status"] == "critical"
    assert "PUSH_API" in bad["description"]
    assert people["bob"].get(path, {"X-WP-Nonce": nonce}).status in (401, 403)
    assert site.visitor().get(path).status == 401
    site.configure(**site.settings())
    assert site.probe("return Push_Server_Health::settings()['status'];") == "good"
    site.configure(**site.settings(PUSH_TOKEN_KEY="short"))
    wrong = site.probe("return Push_Server_Health::settings();")
    assert wrong["status"] == "critical"
    assert "PUSH_TOKEN_KEY is too short" in wrong["description"]
    info = json.dumps(site.probe("return apply_filters('debug_information', []);"))
    assert site.push.api_secret not in info


def test_the_block_in_the_editor(site: WordPress, people: dict[str, Visitor]) -> None:
    nonce = site.probe("return wp_create_nonce('wp_rest');", people["admin"])
    path = "/wp-json/wp/v2/block-renderer/push-server/notifications?context=edit"
    shown = people["admin"].get(path, {"X-WP-Nonce": nonce}).json["rendered"]
    assert "wp-block-push-server-notifications" in shown
    assert "data-push-server" not in shown
    page = people["bob"].get("/members/").text
    assert 'data-push-server="list"' in page


def test_personal_data(site: WordPress, people: dict[str, Visitor], ids: dict[str, int]) -> None:
    site.probe(f"return push_notify({ids['dora']}, 'Personal');")
    site.settle()
    exported = site.probe("return Push_Server_Privacy::export('dora@wp.test');")
    assert "Personal" in json.dumps(exported)
    assert site.probe("return Push_Server_Privacy::erase('dora@wp.test')['items_removed'];") is True
    assert the_list(people["dora"]) == []


def test_a_password_in_the_log_would_be_one_too_many(site: WordPress) -> None:
    text = (site.folder / "debug.log").read_text("utf-8")
    for secret in site.push.secrets:
        assert secret not in text


def test_uninstall_leaves_nothing_behind(site: WordPress, people: dict[str, Visitor]) -> None:
    people["alice"].get("/hello-alice/")
    left = site.probe(
        """
        global $wpdb;
        update_user_meta(1, 'push_server_seen', 7);
        update_option('push_server', ['url' => 'x']);
        define('WP_UNINSTALL_PLUGIN', 'push-server/push-server.php');
        require WP_PLUGIN_DIR . '/push-server/uninstall.php';
        wp_cache_flush();
        $of = fn ($table, $name) =>
            $wpdb->get_col("SELECT $name FROM $table WHERE $name LIKE '%push%'");
        return [
            $wpdb->get_col("SHOW TABLES LIKE '%push%'"),
            $of($wpdb->options, 'option_name'),
            $of($wpdb->usermeta, 'meta_key'),
            (bool) preg_grep('/push/', array_merge(...array_map('array_keys', _get_cron_array()))),
        ];
        """
    )
    assert left == [[], [], [], False]
    # The next visit of an administrator makes the tables again.
    people["admin"].get("/wp-admin/")
    assert people["alice"].state()["items"] == []
