"""What the tests of the WordPress plugin say about its users.

Imported by the tests of the plugin.
"""

import contextlib
import html
import itertools
import re
from collections.abc import Iterator
from typing import Any

from wire import Stream

from wordpress.site import Answer, Visitor, WordPress

AJAX = "/wp-admin/admin-ajax.php"
OPTIONS = "/wp-admin/options-general.php?page=push-server"


@contextlib.contextmanager
def listening(site: WordPress, visitor: Visitor, *channels: str) -> Iterator[Stream]:
    """What the page of this visitor receives."""
    with site.push.stream(site.push.remember(visitor.state()["token"]), *channels) as stream:
        yield stream


def told(site: WordPress, stream: Stream) -> list[dict[str, Any]]:
    """All that a stream was given by now: what is on its way has arrived."""
    site.settle()
    channel = next(name for name in stream.hello["channels"] if name.startswith("user:"))
    site.push.api("publish", channel=channel, data="the end")
    found: list[dict[str, Any]] = []
    while (data := stream.take(1)[-1].value["data"]) != "the end":
        found.append(data)
    return found


def titles(site: WordPress, stream: Stream) -> list[str]:
    return [item["title"] for item in told(site, stream)]


def the_list(visitor: Visitor) -> list[str]:
    """The titles in the list of a user, newest first."""
    return [item["title"] for item in visitor.state()["items"]]


_numbers = itertools.count()


def comment(
    visitor: Visitor, post: int, text: str = "", parent: int = 0, author: str = "",
    site: str = "",
) -> Answer:
    """Write a comment, as the form of a page does."""
    answer = visitor.post(
        f"{site}/wp-comments-post.php", comment_post_ID=post, comment_parent=parent,
        comment=f"{text} {next(_numbers)}", author=author,
        email=f"{author}@wp.test",
    )
    assert answer.status == 200, answer.text
    return answer


def logout(visitor: Visitor) -> None:
    """Follow the link "Log out"."""
    page = visitor.get("/wp-admin/profile.php").text
    link = re.search(r"""href=["']([^"']*action=logout[^"']*)["']""", page)
    assert link, page[:500]
    path = html.unescape(link[1]).partition(str(visitor.port))[2]
    assert visitor.get(path).status == 200


def end_pause(site: WordPress) -> None:
    """The breaker's five seconds are over."""
    site.probe(
        """
        if (function_exists('apcu_enabled') && apcu_enabled()) {
            foreach (new APCUIterator('/^push:.*:pause$/') as $flag) apcu_delete($flag['key']);
        }
        array_map('unlink', glob(sys_get_temp_dir() . '/push-spool-*/flag-pause') ?: []);
        """
    )
