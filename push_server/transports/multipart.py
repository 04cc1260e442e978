"""Server push of 1995: an answer whose parts replace each other, for live pictures.

    <img src="https://push.example.com/subscribe/multipart?ticket=…&channel=camera:1">

No JavaScript is needed. A publication whose data is a picture, as a ``data:`` URL in base64, is a
part; everything else is passed over. Chromium shows a part when the head of the next one is whole,
so that is sent at once behind each part. It leaves no room for a heartbeat: an empty part would be
a broken picture (and ends the tab in Chromium 156), and no other byte is free.

What a part is, is decided here by its first bytes and not by what the publisher says: a part that
claims to be a page would be one, in Firefox, for whoever opens the address by itself.
"""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from typing import Any

from push_server.publications import Publication
from push_server.transports.base import Headers, Transport

BOUNDARY = b"next-picture-of-the-push-server"
# Browsers find out by themselves which of the four it is; the part's head is sent before we know.
_TYPE = b"Content-Type: image/png\r\n\r\n"
_NEXT = b"--%b\r\n%b" % (BOUNDARY, _TYPE)
# Chromium gives a page nothing of an answer from another origin before it has seen 1,024 bytes.
_FIRST = b"--%b\r\nX-Padding: %b\r\n%b" % (BOUNDARY, b"." * 1024, _TYPE)
_PICTURE = re.compile(rb'"data":"data:image/(?:png|jpeg|gif|webp);base64,([A-Za-z0-9+/=]+)"\}')
_MAGIC = re.compile(rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP", re.DOTALL)


class Multipart(Transport):
    """Pictures, each in place of the one before."""

    name = "multipart"
    latest = True
    content_type = f"multipart/x-mixed-replace; boundary={BOUNDARY.decode()}"

    def policy(self, origins: Sequence[str]) -> Headers:
        """Opened by itself it may do nothing but be seen."""
        return (("Content-Security-Policy", "default-src 'none'; sandbox"),)

    def head(self, headers: Headers) -> bytes:
        """The answer's head, and the beginning of the first part."""
        return super().head(headers) + _FIRST

    def encode(self, publications: Sequence[Publication]) -> tuple[bytes, ...]:
        """The picture, and the beginning of the next part."""
        pictures = filter(None, map(_picture, publications))
        return (b"".join(b"%b\r\n%b" % (picture, _NEXT) for picture in pictures),)

    def control(self, message: Mapping[str, Any], cursor: str) -> bytes:
        """Nothing: a picture cannot say it."""
        return b""

    def relay(self, control: bytes, cursor: str) -> bytes:
        """Nothing."""
        return b""


def _picture(publication: Publication) -> bytes:
    """The picture in a publication; empty if it holds none."""
    found = _PICTURE.search(publication.json)
    if found is None or found.end() != len(publication.json):
        return b""
    try:
        picture = b64decode(found[1], validate=True)
    except ValueError:
        return b""
    # With our boundary in it, it could begin a part of its own, of any type.
    return picture if _MAGIC.match(picture) and BOUNDARY not in picture else b""
