"""The browser files without a browser: their unit tests in Node, and what they must not contain."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
FILES = HERE.parents[1] / "push_server" / "browser"
COMPONENT = HERE.parents[1] / "cms_module/notifications"
SCRIPTS = [*sorted(FILES.rglob("*.js")), *sorted(COMPONENT.rglob("*.js"))]
UNIT_TESTS = sorted(HERE.glob("*.test.js"))

FORBIDDEN = {
    r"\beval\s*\(|new Function\b": "nothing that arrives is evaluated",
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write": "nothing that arrives becomes HTML",
    r"document\.cookie": "there are no cookies",
    r"(?<![\w.])setInterval\([^)]*fetch": "there is no interval polling",
    r"addEventListener\(\"(?:before)?unload\"": "it keeps pages out of the back/forward cache",
    r"postMessage\([^;]*\"\*\"": "a message goes to one origin, never to any",
    r"console\.": "a token must never stand in a console",
}


def test_unit_tests_in_node() -> None:
    """All files at once: most of the time they wait."""
    if shutil.which("node") is None:
        pytest.skip("needs the Debian package nodejs")
    pipe, same = subprocess.PIPE, subprocess.STDOUT
    running = [
        subprocess.Popen(["node", file], stdout=pipe, stderr=same, text=True)
        for file in UNIT_TESTS
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    failed = [words for words, process in zip(said, running, strict=True) if process.returncode]
    assert not failed, "\n".join(words[-6000:] for words in failed)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_script_keeps_the_rules(script: Path) -> None:
    text = script.read_text("utf-8")
    for pattern, reason in FORBIDDEN.items():
        assert not re.search(pattern, text), f"{pattern}: {reason}"
    assert text.startswith("/**\n * "), "a script begins with what it is for and its rules"
    assert '\n"use strict";\n' in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_frame_has_no_inline_script_or_style() -> None:
    """Its Content-Security-Policy allows none."""
    text = (FILES / "frame.html").read_text("utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert re.findall(r"<script([^>]*)>([^<]*)</script>", text) == [
        (f' src="{name}?v={{{{version}}}}"', "") for name in ("wire.js", "memory.js", "frame.js")
    ]
