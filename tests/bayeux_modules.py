"""The clients from npm, in `.bayeux` in the checkout; installed when first needed.

Imported by the tests that run them.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent / "bayeux"
MODULES = Path(__file__).resolve().parent.parent / ".bayeux"


def bayeux_modules() -> Path:
    """The folder with the packages of `tests/bayeux/package.json`; skips where there is no npm."""
    wanted = (HERE / "package.json").read_text()
    marker = MODULES / "package.json"
    if not marker.exists() or marker.read_text() != wanted:
        npm = shutil.which("npm")
        if npm is None or shutil.which("node") is None:
            missing = "needs Node and npm"
            if os.environ.get("CI") == "true":
                pytest.fail(missing)
            pytest.skip(missing)
        shutil.rmtree(MODULES, ignore_errors=True)
        MODULES.mkdir()
        (MODULES / "package.json").write_text("{}")  # the real one when all is there
        packages = json.loads(wanted)["dependencies"].items()
        names = [f"{name}@{version}" for name, version in packages]
        subprocess.run(
            [npm, "install", "--silent", "--no-audit", "--no-fund", "--no-save", *names],
            cwd=MODULES, check=True, timeout=400,
        )
        marker.write_text(wanted)
    return MODULES
