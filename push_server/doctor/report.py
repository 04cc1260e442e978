"""What the doctor says, to a person and to a machine."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from push_server import __version__
from push_server.doctor.examine import Result
from push_server.doctor.findings import Finding, Status
from push_server.doctor.visit import Visit

_COLOURS = {Status.OK: "32", Status.SKIPPED: "2", Status.WARNING: "33", Status.ERROR: "1;31"}
_WORDS = {
    Status.OK: "ok", Status.SKIPPED: "skipped", Status.WARNING: "WARNING", Status.ERROR: "FAILED",
}
_SUMS = {
    Status.ERROR: "failed", Status.WARNING: "warnings", Status.OK: "ok", Status.SKIPPED: "skipped",
}
INDENT = " " * 11


def as_text(
    visit: Visit, results: Sequence[Result], seconds: float, colours: bool
) -> Iterator[str]:
    """Line by line, for a terminal."""
    where = "the host of the CMS" if visit.api else "outside"
    if visit.is_push_host:
        where = "the push host"
    yield f"push-server doctor {__version__}: {visit.url}, seen from {where}\n"
    for result in results:
        for number, finding in enumerate(result.findings):
            word = f"{_WORDS[finding.status]:<9}"
            if colours:
                word = f"\x1b[{_COLOURS[finding.status]}m{word}\x1b[0m"
            name = "" if number else result.check.name
            yield f"  {word}{name:<14}{_plain(finding.seen)}"
            yield from _remedy(finding)
    count = Counter(result.status for result in results)
    parts = [f"{count[status]} {word}" for status, word in _SUMS.items()]
    yield f"\n{', '.join(parts)}; {seconds:.1f} seconds"


def _remedy(finding: Finding) -> Iterator[str]:
    if finding.expected:
        yield f"{INDENT}expected: {_plain(finding.expected)}"
    if finding.paste:
        yield f"{INDENT}{finding.place}:"
        yield f"{INDENT}    {_plain(finding.paste)}"


def _plain(text: str) -> str:
    """Without what would steer the terminal: much of it came over the network."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def as_json(visit: Visit, results: Sequence[Result], seconds: float) -> str:
    """The same for a machine."""
    checks = [
        {
            "name": result.check.name,
            "title": result.check.title,
            "status": result.status,
            "findings": [finding._asdict() for finding in result.findings],
        }
        for result in results
    ]
    report = {
        "ok": is_well(results),
        "version": __version__,
        "url": visit.url,
        "seconds": round(seconds, 2),
        "checks": checks,
    }
    return json.dumps(report, ensure_ascii=False, indent=2)


def is_well(results: Sequence[Result]) -> bool:
    """Whether no hop fails."""
    return all(result.status is not Status.ERROR for result in results)
