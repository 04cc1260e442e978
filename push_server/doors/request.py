"""A request as the doors see it, and strict JSON.

Reads the WSGI environment; decides nothing about rights. Imported by the doors.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from math import isinf
from typing import Any
from urllib.parse import parse_qsl

from push_server.addresses import UNIX_PEER
from push_server.errors import BadInput, TooLarge, UnsupportedMedia

JSON_DEPTH = 32
Environ = dict[str, Any]
Answer = tuple[int, list[tuple[str, str]], Iterable[bytes]]
"""Status, headers, body."""


class Request:
    """One HTTP request."""

    def __init__(self, environ: Environ) -> None:
        self.environ = environ
        self.method: str = environ["REQUEST_METHOD"]
        self.path: str = environ["PATH_INFO"]
        self.ip: str = environ.get("REMOTE_ADDR") or UNIX_PEER

    def header(self, name: str) -> str:
        """The value of a header, or an empty string."""
        return str(self.environ.get("HTTP_" + name.upper().replace("-", "_"), ""))

    @cached_property
    def query(self) -> list[tuple[str, str]]:
        """The parameters in the URL. Raises `BadInput`."""
        text: str = self.environ.get("QUERY_STRING", "")
        try:
            return parse_qsl(text, keep_blank_values=True, errors="strict")
        except ValueError:
            raise BadInput("query_malformed", "The query string cannot be read.") from None

    def parameter(self, name: str, default: str = "") -> str:
        """One parameter of the URL. Raises `BadInput` if it is given twice."""
        values = [value for key, value in self.query if key == name]
        if len(values) > 1:
            raise BadInput("query_malformed", f"{name} is given more than once.")
        return values[0] if values else default

    def parameters(self, name: str) -> list[str]:
        """All values of a repeated parameter."""
        return [value for key, value in self.query if key == name]

    def body(self, limit: int) -> bytes:
        """The whole body. Raises `TooLarge`, also where no front has limited it yet."""
        declared: str = self.environ.get("CONTENT_LENGTH") or "0"
        if not declared.isdecimal() or int(declared) > limit:
            raise TooLarge("body_too_large", f"A body has at most `max_body` = {limit} bytes.")
        # A front that ends the input itself (wsgi.input_terminated) may have no length.
        terminated = self.environ.get("wsgi.input_terminated")
        size = limit + 1 if terminated else int(declared)
        body: bytes = self.environ["wsgi.input"].read(size)
        if len(body) > limit:
            raise TooLarge("body_too_large", f"A body has at most `max_body` = {limit} bytes.")
        return body

    def json_object(self, limit: int) -> dict[str, Any]:
        """The JSON object in the body. Raises `BadInput`, `TooLarge`, `UnsupportedMedia`.

        The content type is demanded, because a form of a foreign page can send a body but not
        this type without asking first (a CORS preflight).
        """
        media_type = str(self.environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
        if media_type != "application/json":
            raise UnsupportedMedia("content_type", "Send Content-Type: application/json.")
        value = parse_json(self.body(limit))
        if not isinstance(value, dict):
            raise BadInput("json_malformed", "The body is a JSON object.")
        return value


def check_fields(given: Mapping[str, Any], required: set[str], optional: set[str]) -> None:
    """Raise `BadInput` for a parameter that is missing, and for one that nobody knows."""
    if missing := sorted(required - given.keys()):
        raise BadInput("params", f"The parameter {missing[0]} is missing.")
    if unknown := sorted(given.keys() - required - optional):
        raise BadInput("params", f"There is no parameter {unknown[0][:40]}.")


def parse_json(body: bytes) -> Any:
    """The value of a JSON text, strictly.

    Raises `BadInput` for what parsers are known to disagree or fall over on: other encodings
    than UTF-8, NaN, numbers out of range, duplicate keys, lone surrogates, and more than 32 levels.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()  # fails on a lone surrogate
    except (ValueError, RecursionError):
        raise BadInput("json_malformed", "The body is not valid JSON.") from None
    if _deeper_than(value, JSON_DEPTH):
        raise BadInput("json_malformed", f"The body is nested more than {JSON_DEPTH} deep.")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("duplicate key")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if isinf(value):
        raise ValueError("out of range")  # and could be written in no answer
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _deeper_than(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels + 1):
        layer = [each for each in layer if isinstance(each, (dict, list))]
        if not layer:
            return False
        layer = [
            inner
            for outer in layer
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return True
