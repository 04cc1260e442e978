"""Imports point down, and every third-party package has one importer.

`FLOORS` is the table that `docs/design.rst` draws. A module may import from its own floor and
from the floors below; within a floor there may be no cycle. A module without a floor fails, so
that whoever adds one has to decide where it belongs. Imports are read from the syntax tree:
one inside a function or under ``if TYPE_CHECKING`` counts like any other.
"""

import ast
import sys
from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "push_server"
ROOT = Path(__file__).resolve().parent.parent / PACKAGE

# To add a module: its name on its floor. A name ending in ".*" stands for a whole folder.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"__init__", "addresses", "errors", "log", "positions"}),
    frozenset(
        {
            "bridge_settings",
            "casts",
            "config_load",
            "config_sources",
            "config_text",
            "channels",
            "dates",
            "heads",
            "history",
            "publications",
            "revocations",
            "settings",
            "signatures",
            "tokens",
        }
    ),
    frozenset({"transports.*"}),
    frozenset({"brokers.*"}),
    frozenset(
        {
            "admission",
            "bayeux.*",
            "census",
            "connection",
            "disruptions",
            "greeting",
            "hub",
            "lifetimes",
            "membership",
            "pacing",
            "partings",
            "presence",
            "rooms",
            "subscriber",
            "watch",
            "websocket",
            "wheel",
        }
    ),
    frozenset({"crossing", "front.*", "sockets"}),
    frozenset({"bridges.*", "calls", "doors.*", "metrics", "webhooks"}),
    frozenset(
        {
            "__main__",
            "cli",
            "client",
            "doctor.*",
            "feeding",
            "listener",
            "results",
            "server",
            "setup_text",
            "systemd",
            "workers",
            "wsgi",
        }
    ),
)

# Who wraps what, a module or a folder; nobody else may depend on how these packages work. sqlite3
# comes with Python but is a dependency all the same.
IMPORTERS: Mapping[str, str] = {
    "click": "cli",
    "itsdangerous": "tokens",
    "prometheus_client": "metrics",
    "redis": "brokers.redis_connection",
    "requests": "calls",
    "sqlite3": "brokers.sqlite_file",
    "stomp": "bridges.stomp",
    "urllib3": "calls",
    "waitress": "front.*",
    "websockets": "transports.frames",
}


def floor_of(module: str, floors: Iterable[frozenset[str]]) -> int | None:
    """The floor of a module such as ``hub`` or ``doors.api``; `None` if it has none."""
    folder = _folder_of(module)
    for number, names in enumerate(floors):
        if module in names or folder in names:
            return number
    return None


def _folder_of(module: str) -> str:
    return module.partition(".")[0] + ".*"


def modules_in(root: Path) -> dict[str, ast.Module]:
    """The syntax trees of a package, by name within the package; ``doors`` is doors/__init__."""
    trees = {}
    for path in sorted(root.rglob("*.py")):
        parts = list(path.relative_to(root).with_suffix("").parts)
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
        trees[".".join(parts)] = ast.parse(path.read_text("utf-8"), str(path))
    return trees


def imports_of(tree: ast.Module, module: str, known: Iterable[str]) -> set[str]:
    """The full names of what a module imports, its own package as ``push_server.…``."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # Relative imports would be a second spelling of everything checked here.
            assert node.level == 0, f"{module} has a relative import"
            assert node.module is not None
            for alias in node.names:
                # "from push_server.doors import api" names a module, "… import Door" does not.
                full = f"{node.module}.{alias.name}"
                is_module = full.removeprefix(f"{PACKAGE}.") in known
                names.add(full if is_module else node.module)
    return names


def violations(
    root: Path, floors: tuple[frozenset[str], ...], importers: Mapping[str, str]
) -> list[str]:
    """Every broken rule, one sentence each."""
    trees = modules_in(root)
    found = []
    inside: dict[str, set[str]] = {}
    for module, tree in trees.items():
        floor = floor_of(module, floors)
        if floor is None:
            found.append(f"{module} has no floor")
            continue
        inside[module] = set()
        for name in imports_of(tree, module, trees):
            top, _, rest = name.partition(".")
            if top == PACKAGE:
                target = rest or "__init__"
                target_floor = floor_of(target, floors)
                if target_floor is not None and target_floor > floor:
                    found.append(f"{module} (floor {floor}) imports {target} ({target_floor})")
                elif target != module:
                    inside[module].add(target)
            elif top in importers:
                if importers[top] not in (module, _folder_of(module)):
                    found.append(f"{module} imports {top}, which belongs to {importers[top]}")
            elif top not in sys.stdlib_module_names:
                found.append(f"{module} imports {top}, which has no importer")
    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        found.append("cycle: " + " imports ".join(reversed(error.args[1])))
    return found


def test_the_package_keeps_the_rules() -> None:
    assert violations(ROOT, FLOORS, IMPORTERS) == []


def test_no_name_in_the_tables_is_stale() -> None:
    modules = modules_in(ROOT)
    folders = {_folder_of(module) for module in modules}
    for names in FLOORS:
        assert names <= {*modules, *folders}
    assert {*IMPORTERS.values()} <= {*modules, *folders}


# The rules bite: one small tree, and one way of breaking each rule.

TREE = {
    "__init__": "",
    "errors": "import re",
    "channels": "from push_server.errors import PushError",
    "tokens": "import itsdangerous\nfrom push_server import channels",
    "doors/__init__": "from push_server import __version__",
    "doors/api": "from push_server.doors import Door\nimport push_server.tokens",
}
TREE_FLOORS = (
    frozenset({"__init__", "errors"}),
    frozenset({"channels", "tokens"}),
    frozenset({"doors.*"}),
)
TREE_IMPORTERS = {"itsdangerous": "tokens"}


def broken(tmp_path: Path, changes: Mapping[str, str]) -> list[str]:
    for name, source in {**TREE, **changes}.items():
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(source)
    return violations(tmp_path, TREE_FLOORS, TREE_IMPORTERS)


def test_a_good_tree_passes(tmp_path: Path) -> None:
    assert broken(tmp_path, {}) == []


UPWARD = "errors (floor 0) imports tokens (1)"


@pytest.mark.parametrize(
    ("module", "source", "said"),
    [
        ("errors", "import push_server.tokens", UPWARD),
        ("errors", "from push_server.tokens import Grant", UPWARD),
        ("errors", "from push_server import tokens", UPWARD),
        ("errors", "def late():\n    from push_server import tokens", UPWARD),
        ("errors", "if TYPE_CHECKING:\n    import push_server.tokens", UPWARD),
        ("tokens", "from push_server.doors import api", "tokens (floor 1) imports doors.api (2)"),
        ("tokens", "from push_server.doors import Door", "tokens (floor 1) imports doors (2)"),
        ("novelty", "", "novelty has no floor"),
        ("more/novelty", "", "more.novelty has no floor"),
        ("doors/api", "import itsdangerous.exc", "doors.api imports itsdangerous, which belongs"),
        ("doors/api", "from yaml import load", "doors.api imports yaml, which has no importer"),
        ("channels", "import push_server.tokens", "cycle: "),
    ],
)
def test_a_broken_rule_is_named(tmp_path: Path, module: str, source: str, said: str) -> None:
    found = broken(tmp_path, {module: source})
    assert len(found) == 1
    assert found[0].startswith(said)


def test_relative_imports_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="relative import"):
        broken(tmp_path, {"errors": "from . import channels"})
