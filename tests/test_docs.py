"""The documents: well formed, without dead links, and the quick start does what it says."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import IO

import pytest
from docutils import nodes
from docutils.core import publish_doctree
from ports import free_port
from waiting import PATIENCE

from push_server import errors
from push_server.tokens import TokenKeys

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(path for path in [*ROOT.glob("*.rst"), *ROOT.glob("docs/*.rst")])
BESIDE = [ROOT / f"{folder}/README.rst" for folder in ("iptables", "nginx", "packaging")]
"""Pages that stand beside what they are about."""


def parse(page: Path) -> nodes.document:
    """The page as a tree. Raises for whatever docutils complains about."""
    return publish_doctree(
        page.read_text("utf-8"),
        source_path=str(page),
        settings_overrides={"report_level": 1, "halt_level": 1, "syntax_highlight": "none"},
    )


@pytest.mark.parametrize("page", [*PAGES, *BESIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_page_is_well_formed_and_its_links_lead_somewhere(page: Path) -> None:
    tree = parse(page)
    for reference in tree.findall(nodes.reference):
        target = reference.get("refuri", "")
        if "://" not in target:
            assert (page.parent / target).is_file(), target
    # A second line in the first column of a simple table begins another row.
    for row in tree.findall(nodes.row):
        first, *others = [entry.astext() for entry in row.findall(nodes.entry)]
        assert any(others), first


@pytest.mark.parametrize("page", [*PAGES, *BESIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page: Path) -> None:
    folders = "push_server|docs|tests|cms_module|tools|bench|iptables|nginx|packaging"
    names = re.findall(rf"``((?:{folders})/[\w./]*)``", page.read_text("utf-8"))
    made = {"bench/results/"}
    assert [name for name in names if name not in made and not (ROOT / name).exists()] == []


def test_readme_names_every_document() -> None:
    readme = (ROOT / "README.rst").read_text("utf-8")
    named = {path.name for path in PAGES if path.name in readme}
    assert named == {path.name for path in PAGES} - {"README.rst"}


def test_the_protocol_names_every_error_code() -> None:
    source = "".join(
        path.read_text("utf-8")
        for path in (ROOT / "push_server").rglob("*.py")
        if path.parent.name != "doctor" and "bridge" not in str(path)
    )
    kinds = "|".join(name for name, kind in vars(errors).items() if isinstance(kind, type))
    raised = set(re.findall(rf'\b(?:{kinds})\(\s*"(\w+)"', source))
    made = {f"{what}_malformed" for what in ("id", "exclude", "instance")}
    page = (ROOT / "docs/protocol.rst").read_text("utf-8")
    table = page.partition("status           code\n")[2].partition("\n\n")[0]
    named = set(re.findall(r"``(\w+)``", table))
    elsewhere = {"broker_unusable", "bayeux_version", "connection_types"}
    assert raised - elsewhere <= named
    assert named <= made | set(re.findall(r'"(\w+)"', source))


# The quick start, word for word, but on ports of its own and without installing anything.


@pytest.fixture(scope="module")
def blocks() -> dict[str, list[str]]:
    """The code of the quick start, by language."""
    ports = {"6660": str(free_port()), "6667": str(free_port())}
    found: dict[str, list[str]] = {}
    for block in parse(ROOT / "docs/quickstart.rst").findall(nodes.literal_block):
        code = re.sub("|".join(ports), lambda match: ports[match[0]], block.astext())
        found.setdefault(block["classes"][-1], []).append(code)
    found["ports"] = list(ports.values())
    return found


@pytest.fixture(scope="module")
def environment(blocks: dict[str, list[str]], tmp_path_factory: pytest.TempPathFactory) -> (
    dict[str, str]
):
    """The environment of a terminal in which push-server is installed."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "push-server"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m push_server "$@"\n')
    command.chmod(0o755)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PUSH_")}
    return {
        **kept,
        "PATH": f"{folder}:{kept['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PUSH_SERVER_LISTEN": f"127.0.0.1:{blocks['ports'][0]}",
        "PUSH_SERVER_INTERNAL_LISTEN": f"127.0.0.1:{blocks['ports'][1]}",
    }


class Terminal:
    """A shell that runs one block in the background; its lines can be waited for."""

    def __init__(self, code: str, folder: Path, environment: dict[str, str]) -> None:
        # "exec" lets the signal reach the last command itself.
        *before, last = code.replace("\\\n", " ").splitlines()
        script = "\n".join([*before, f"exec {last}"])
        self.process = subprocess.Popen(
            ["sh", "-euc", script],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: Queue[str] = Queue()
        assert self.process.stdout is not None
        self._thread = threading.Thread(target=self._read, args=(self.process.stdout,))
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        stream.close()

    def wait_for(self, words: str) -> str:
        """The next line with these words."""
        deadline = time.monotonic() + PATIENCE
        while words not in (line := self._lines.get(timeout=deadline - time.monotonic())):
            pass
        return line

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        self._thread.join(PATIENCE)


@pytest.fixture(scope="module")
def site(
    blocks: dict[str, list[str]],
    environment: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Path, dict[str, str]]]:
    """A folder in which `init` and `serve` were run, and the environment that `init` printed."""
    folder = tmp_path_factory.mktemp("quickstart")
    _, init, serve, *_ = blocks["sh"]
    done = subprocess.run(
        ["sh", "-euc", init],
        cwd=folder, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE,
    )
    printed = dict(re.findall(r"^(PUSH_\w+)=(.*)$", done.stdout, re.MULTILINE))
    assert set(printed) == {"PUSH_URL", "PUSH_API", "PUSH_TOKEN_KEY", "PUSH_API_KEY"}
    server = Terminal(serve, folder, environment)
    try:
        server.wait_for("setting=internal_listen")
        printed["PUSH_API"] = f"http://127.0.0.1:{blocks['ports'][1]}"
        yield folder, printed
    finally:
        server.end()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_quickstart_terminals(
    blocks: dict[str, list[str]], environment: dict[str, str], site: tuple[Path, dict[str, str]]
) -> None:
    folder, printed = site
    install, _, _, listen, publish, curl, call = blocks["sh"]
    assert "pip install ." in install
    terminals = [Terminal(code, folder, environment) for code in (listen, curl)]
    try:
        terminals[0].wait_for('"type": "hello"')
        terminals[1].wait_for('"type":"hello"')
        answer = subprocess.run(
            ["sh", "-euc", publish],
            cwd=folder, env=environment, capture_output=True, text=True, check=True,
            timeout=PATIENCE,
        )
        assert json.loads(answer.stdout)["offset"] == 1
        assert json.loads(terminals[0].wait_for('"node:7"'))["data"] == {"title": "Hello"}
        assert '"data":{"title":"Hello"}' in terminals[1].wait_for('data: {"channel"')
        answer = subprocess.run(
            ["sh", "-euc", call],
            cwd=folder, env={**environment, **printed}, capture_output=True, text=True, check=True,
            timeout=PATIENCE,
        )
        assert json.loads(answer.stdout)["result"]["offset"] == 2
        assert json.loads(terminals[0].wait_for('"node:7"'))["data"] == {"title": "Hi"}
    finally:
        for terminal in terminals:
            terminal.end()


@pytest.mark.skipif(shutil.which("php") is None, reason="php is not installed")
def test_quickstart_php(blocks: dict[str, list[str]], site: tuple[Path, dict[str, str]]) -> None:
    folder, printed = site
    (page,) = blocks["php"]
    calls = """
        echo push_token('42', 'session', ['node:*']), "\\n";
        echo json_encode(push_publish('php:1', ['title' => 'Grüße'])), "\\n";
        putenv('PUSH_API_KEY=whsec_' . base64_encode(str_repeat('x', 32)));
        echo json_encode(push_publish('php:1', 1)), "\\n";
    """
    done = subprocess.run(
        ["php"],
        input=page + calls, env={**os.environ, **printed}, cwd=folder, capture_output=True,
        text=True, check=True, timeout=PATIENCE,
    )
    token, published, refused = done.stdout.split()
    assert (published, refused) == ("true", "false")
    grant = TokenKeys([printed["PUSH_TOKEN_KEY"]]).verify(token, time.time())
    assert grant.user == "42"
    assert grant.may_subscribe("node:7")
    assert "session" not in grant.session


def test_quickstart_page_uses_what_the_script_has(blocks: dict[str, list[str]]) -> None:
    (page,) = blocks["html"]
    script = (ROOT / "push_server/browser/push.js").read_text("utf-8")
    options = re.findall(r"^ +(\w+): ", page, re.MULTILINE)
    assert options == ["server", "token"]
    for name in [*options, *re.findall(r"push\.(\w+)\(", page)]:
        assert re.search(rf"\b{name}\b", script), name
