"""The files of the plugin, and the page that teaches it."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from docutils import nodes
from docutils.core import publish_doctree

from wordpress.site import PLUGIN, Visitor, WordPress
from wordpress.story import listening, told

ROOT = PLUGIN.parent.parent
SOURCES = [*PLUGIN.glob("*.php"), *PLUGIN.glob("includes/*.php")]


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[str]]:
    """The code on the page, by language."""
    tree = publish_doctree(
        (ROOT / "docs/wordpress.rst").read_text("utf-8"),
        settings_overrides={"report_level": 1, "halt_level": 1, "syntax_highlight": "none"},
    )
    found: dict[str, list[str]] = {}
    for block in tree.findall(nodes.literal_block):
        found.setdefault(block["classes"][-1], []).append(block.astext())
    return found


def test_the_page_installs_the_plugin(blocks: dict[str, list[str]], tmp_path: Path) -> None:
    (copy,) = blocks["sh"]
    (tmp_path / "wp-content/plugins").mkdir(parents=True)
    subprocess.run(
        ["sh", "-euc", copy], cwd=tmp_path, env={"PUSH_SOURCE": str(ROOT)}, check=True, timeout=60
    )
    main = tmp_path / "wp-content/plugins/push-server/push-server.php"
    assert "Plugin Name:       Push Server" in main.read_text("utf-8")


def test_the_page_and_the_command_name_the_same_settings(
    blocks: dict[str, list[str]], site: WordPress
) -> None:
    assert re.findall(r"define\('(\w+)'", blocks["php"][0]) == list(site.settings())


def test_the_code_on_the_page_does_what_it_says(
    blocks: dict[str, list[str]], site: WordPress, people: dict[str, Visitor], ids: dict[str, int]
) -> None:
    _, notify, publish = blocks["php"]
    granted, _, sent = publish.partition("\n")
    plugin = site.folder / "www/wp-content/mu-plugins/page.php"
    plugin.write_text(f"<?php\n{granted}\n")
    try:
        with listening(site, people["carol"], "stock:17") as carol:
            for _ in range(2):
                site.probe(f"$user_id = {ids['carol']}; {notify} {sent}")
                site.settle()  # else the other request may be first to say it
            left, item, again = told(site, carol)
    finally:
        plugin.unlink()
    assert left == again == {"left": 3}
    assert item["title"] == "Your order is on its way"
    assert item["url"].endswith("/orders/17/")
    assert "pushServer.ready.then" in blocks["html"][0]
    script = (PLUGIN / "assets/start.js").read_text("utf-8")
    assert "window.pushServer = " in script and "ready:" in script


def test_every_hook_is_on_the_page_and_in_the_readme() -> None:
    text = "".join(path.read_text("utf-8") for path in SOURCES)
    hooks = set(re.findall(r"(?:apply_filters|do_action)\( '(push_server_\w+)'", text))
    assert len(hooks) > 7
    for page in (ROOT / "docs/wordpress.rst", PLUGIN / "readme.txt"):
        assert set(re.findall(r"\bpush_server_[a-z_]+", page.read_text("utf-8"))) == hooks


def test_every_text_can_be_translated() -> None:
    """The template has each text of the sources, and no other; tools/wordpress_pot writes it."""
    sources = [*PLUGIN.glob("includes/*.php"), PLUGIN / "assets/block.js"]
    text = "".join(path.read_text("utf-8") for path in sources)
    literal = r"""(?:'([^']*)'|"([^"]*)")"""
    ours = re.findall(rf"\b(?:esc_html__|__)\(\s*{literal},\s*['\"]push-server", text)
    plural = re.findall(rf"\b_n\(\s*{literal},\s*{literal},[^,]+,\s*'push-server'", text)
    used = {part for found in [*ours, *plural] for part in found if part}
    template = (PLUGIN / "languages/push-server.pot").read_text("utf-8")
    listed = set(re.findall(r'^msgid(?:_plural)? "(.+)"$', template, re.MULTILINE))
    assert len(used) > 60
    assert used == listed
    assert re.findall(r"\b(?:_e|_x|_nx|esc_attr__|esc_html_e)\(", text) == []


def test_every_check_has_a_title_that_can_be_translated() -> None:
    client = (PLUGIN / "lib/client/src/Check.php").read_text("utf-8")
    checks = (PLUGIN / "includes/class-push-server-checks.php").read_text("utf-8")
    own = re.findall(r"new Check\( '(\w+)'", checks)
    known = set(re.findall(r"^ {8}'(\w+)' => ['\"]", client, re.MULTILINE))
    assert known | {*own} == set(re.findall(r"^\t{3}'(\w+)' => ", checks, re.MULTILINE))


def test_the_versions_agree() -> None:
    main = (PLUGIN / "push-server.php").read_text("utf-8")
    readme = (PLUGIN / "readme.txt").read_text("utf-8")
    version = re.search(r"Version: +(\S+)", main)
    assert version
    assert f"PUSH_SERVER_VERSION = '{version[1]}'" in main
    assert f"Stable tag: {version[1]}\n" in readme
    assert f"= {version[1]} =" in readme
    assert json.loads((PLUGIN / "block/block.json").read_text("utf-8"))["version"] == version[1]
    for name in ("Requires at least", "Requires PHP"):
        values = {re.search(rf"{name}: +(\S+)", text)[1] for text in (main, readme)}  # type: ignore[index]
        assert len(values) == 1
