"""The Drupal module: on stand-ins for Drupal always, and in a real one where there is one.

    DRUPAL_ROOT=/var/www/drupal/web make test       # its Unit and Kernel tests
    DRUPAL_URL=http://www.drupal.test … make test   # its Functional tests, too

`DRUPAL_ROOT` is the folder that holds `core`, in a checkout with Drupal's test tools (the package
`drupal/core-dev`) and with this module in `modules`. The tests make sites of their own in SQLite.
`DRUPAL_URL` is where a web server serves that folder; it and the tests run as the same user.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from push_server.settings import Settings
from push_server.setup_text import for_the_cms
from push_server.signatures import ApiKey

ROOT = Path(__file__).resolve().parent.parent
MODULE = ROOT / "cms_module/drupal"
SYMFONY = Path("/usr/share/php/Symfony/Component")
COMPONENTS = ("DependencyInjection", "EventDispatcher", "HttpKernel", "Yaml")

DRUPAL_ROOT = os.environ.get("DRUPAL_ROOT", "")
DRUPAL_URL = os.environ.get("DRUPAL_URL", "")

php = pytest.mark.skipif(shutil.which("php") is None, reason="PHP is not installed")
stand_ins = pytest.mark.skipif(
    shutil.which("phpunit") is None
    or not all((SYMFONY / name / "autoload.php").is_file() for name in COMPONENTS),
    reason="PHPUnit or Symfony is not installed (phpunit, php-symfony-*)",
)


def run(command: list[str], seconds: float, **more: str) -> str:
    """What a program writes, which has to succeed in this time."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env={**os.environ, **more},
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


@php
@stand_ins
def test_the_parts_of_the_module_fit_each_other() -> None:
    program = shutil.which("phpunit")
    assert program is not None
    output = run(["php", "-d", "memory_limit=256M", program, "-c", str(ROOT / "tests/drupal")], 60)
    assert re.search(r"OK \(\d\d tests", output), output


@php
def test_init_prints_what_the_module_reads() -> None:
    settings = Settings(
        public_url="https://push.example.com",
        token_keys=("t" * 32,),
        api_keys={"cms": ApiKey("cms", b"a" * 32, None)},
    )
    text = for_the_cms(settings)
    drupal = re.search(r"^\$settings\['push_server'\] = \[$.*?^\];$", text, re.M | re.S)
    assert drupal, text
    code = (
        f"require '{MODULE}/lib/client/autoload.php'; {drupal[0]}"
        " echo PushServer\\Config::fromArray($settings['push_server'])->url;"
    )
    assert run(["php", "-r", code], 30) == "https://push.example.com"
    assert "$this->settings->get('push_server'" in (MODULE / "src/ClientFactory.php").read_text()


def test_no_file_is_in_the_way_of_an_installation() -> None:
    # A folder of another name would not be found by Drupal: its name is that of the .info.yml.
    assert [path.name for path in MODULE.glob("*.info.yml")] == ["push_server.info.yml"]
    assert not list(MODULE.rglob("*.orig")) + list(MODULE.rglob("node_modules"))


@pytest.fixture
def phpunit(tmp_path: Path) -> list[str]:
    """PHPUnit of the Drupal in DRUPAL_ROOT."""
    if not DRUPAL_ROOT:
        pytest.skip("DRUPAL_ROOT is not set: the module is not tested in a real Drupal")
    root = Path(DRUPAL_ROOT).resolve()
    module = root / "modules/push_server"
    assert (module / "push_server.info.yml").is_file(), f"{module} is not this module"
    programs = [folder / "vendor/bin/phpunit" for folder in (root, root.parent)]
    program = next((path for path in programs if path.is_file()), None)
    assert program is not None, f"no PHPUnit in {programs}: composer require --dev drupal/core-dev"
    config = str(root / "core/phpunit.xml.dist")
    return ["php", "-d", "memory_limit=512M", str(program), "-c", config, str(module / "tests/src")]


@php
@pytest.mark.parametrize("suite", ["Unit", "Kernel", "Functional"])
def test_in_a_real_drupal(phpunit: list[str], suite: str, tmp_path: Path) -> None:
    if suite == "Functional" and not DRUPAL_URL:
        pytest.skip("DRUPAL_URL is not set: no web server serves DRUPAL_ROOT")
    phpunit[-1] += f"/{suite}"
    output = run(
        phpunit,
        1200,
        SIMPLETEST_BASE_URL=DRUPAL_URL or "http://localhost",
        SIMPLETEST_DB=f"sqlite://localhost/{tmp_path}/db.sqlite",
        SYMFONY_DEPRECATIONS_HELPER="disabled",
        BROWSERTEST_OUTPUT_DIRECTORY=str(tmp_path),
    )
    assert "OK" in output
