"""The scripts in ``tools/``: what they say where something is missing, broken or not the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"

# Everything that tools/need itself calls; no apt-get and no sudo, so it can install nothing.
BASICS = ("cat", "id", "sed", "sh")
# What only some tests need.
OTHERS = ("firefox-esr", "ip", "nft", "iptables-restore", "apache2", "openssl", "certutil")
# What is needed only where changes are judged.
JUDGING = (
    "npm", "nginx", "haproxy", "caddy", "mariadbd", "mariadb", "dpkg-query", "lintian",
    "mmdebstrap", "promtool", "systemd-analyze",
)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A PATH with nothing but the basics and a Python."""
    for program in BASICS:
        found = shutil.which(program)
        assert found is not None
        (tmp_path / program).symlink_to(found)
    python = tmp_path / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return tmp_path


def need(machine: Path, target: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [TOOLS / "need", target],
        env={"PATH": str(machine), **environment},
        capture_output=True, text=True, check=False, timeout=30,
    )


def add(machine: Path, *programs: str) -> None:
    for program in programs:
        # The answer of php to whether it has an extension.
        (machine / program).write_text("#!/bin/sh\necho 1\n")
        (machine / program).chmod(0o755)


def test_each_missing_package_is_named_in_one_line_with_the_reason(machine: Path) -> None:
    add(machine, *OTHERS, "chromedriver", "node", "redis-check-rdb", "curl", "phpunit")
    add(machine, "phpcs", "php-fpm")
    done = need(machine, "test")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "missing: Debian package chromium: the browser tests run in it",
        "missing: Debian package php-cli: it checks that PHP can issue tokens",
        "missing: Debian package php-curl: the PHP client is tested with and without it",
        *(
            f"missing: Debian package php-symfony-{part}: it wires the Drupal module without Drupal"
            for part in ("dependency-injection", "http-kernel", "yaml")
        ),
    ]


def test_nothing_may_be_missing_where_changes_are_judged(machine: Path) -> None:
    add(machine, *OTHERS, *JUDGING, "chromedriver", "node", "redis-check-rdb", "curl", "php")
    add(machine, "phpunit", "phpcs", "php-fpm")
    assert need(machine, "test", CI="true").returncode == 1
    add(machine, "chromium")
    done = need(machine, "test", CI="true")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_benchmark_needs_everything(machine: Path) -> None:
    done = need(machine, "bench")
    assert done.returncode == 1
    assert "missing: Debian package gcc: " in done.stderr


@pytest.mark.parametrize("script", ["", "#!/bin/sh\nexit 1\n"])
def test_without_a_good_python_nothing_works(machine: Path, script: str) -> None:
    (machine / "python3").unlink()
    if script:
        (machine / "python3").write_text(script)
        (machine / "python3").chmod(0o755)
    for target in ("demo", "test", "bench"):
        done = need(machine, target)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("missing: Python 3.11 or newer as python3")


def test_a_missing_venv_module_ends_the_demo(machine: Path) -> None:
    # Debian keeps ensurepip in a package of its own.
    (machine / "python3").write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1; esac\n')
    done = need(machine, "demo")
    assert done.returncode == 1
    assert done.stderr.startswith("missing: Debian package python3-venv: ")


@pytest.mark.parametrize(
    ("name", "source"), [("a.js", "let = = 1;\n"), ("a.php", "<?php function {\n")]
)
def test_syntax_finds_a_broken_file(tmp_path: Path, name: str, source: str) -> None:
    if shutil.which({".js": "node", ".php": "php"}[Path(name).suffix]) is None:
        pytest.skip("the language is not installed")
    subprocess.run(["git", "init", "-q", tmp_path], check=True, timeout=30)
    (tmp_path / "good.js").write_text("let a = 1;\n")
    (tmp_path / "good.php").write_text("<?php function a() {}\n")

    def check() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TOOLS / "syntax"], cwd=tmp_path, env=dict(os.environ),
            capture_output=True, text=True, check=False, timeout=30,
        )

    good = check()
    assert (good.returncode, good.stderr) == (0, "")
    (tmp_path / name).write_text(source)
    bad = check()
    assert bad.returncode == 1
    assert name in bad.stderr


def copies(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TOOLS / "copies", *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=30,
    )


def test_copies_in_the_cms_modules_are_like_their_sources() -> None:
    done = copies(ROOT, "--check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    browser, php = ROOT / "push_server/browser", ROOT / "cms_module/client/src"
    for module, assets in (("drupal", "js"), ("wordpress", "assets")):
        copy = ROOT / "cms_module" / module
        assert (copy / assets / "push.js").read_bytes() == (browser / "push.js").read_bytes()
        assert {path.name for path in (copy / "lib/client/src").iterdir()} == {
            path.name for path in php.iterdir()
        }


def test_copies_finds_what_was_edited_added_and_taken_away(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "cms_module", tmp_path / "cms_module")
    shutil.copytree(ROOT / "push_server/browser", tmp_path / "push_server/browser")
    drupal, wordpress = tmp_path / "cms_module/drupal", tmp_path / "cms_module/wordpress"
    (drupal / "js/notifications.js").write_text("edited")
    with (tmp_path / "push_server/browser/page/status.js").open("a") as part:
        part.write("changed();\n")
    (drupal / "lib/client/src/Added.php").write_text("<?php\n")
    (wordpress / "lib/client/src/Client.php").unlink()
    (wordpress / "lib/client/LICENSE").unlink()
    own = wordpress / "assets/own.js"
    own.write_text("of the module itself")

    checked = copies(tmp_path, "--check")
    assert checked.returncode == 1
    assert [line.split()[0] for line in checked.stderr.splitlines()] == [
        "cms_module/drupal/js/notifications.js",
        "cms_module/drupal/js/push.js",
        "cms_module/drupal/lib/client/src/Added.php",
        "cms_module/examples/plain_php/push.js",
        "cms_module/wordpress/assets/push.js",
        "cms_module/wordpress/lib/client/LICENSE",
        "cms_module/wordpress/lib/client/src/Client.php",
        "push_server/browser/push.js",
    ]
    assert (drupal / "js/notifications.js").read_text() == "edited"

    assert copies(tmp_path).returncode == 0
    assert copies(tmp_path, "--check").returncode == 0
    assert not (drupal / "lib/client/src/Added.php").exists()
    assert own.read_text() == "of the module itself"
    assert "\n  changed();\n" in (drupal / "js/push.js").read_text()


def test_copies_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert copies(ROOT, "--force").returncode == 2
    elsewhere = copies(tmp_path)
    assert elsewhere.returncode == 2
    assert "at the top of the checkout" in elsewhere.stderr


PAGE = """Before.

.. What follows is written by `make docs`.

old

.. End of what `make docs` writes.

After.
"""
RUN = """<testsuites><testsuite>
<testcase name="other"/>
<testcase name="one"><property name="transport" value="SSE"/><property name="seen" value="live"/>
  <property name="browser" value="Chromium 1"/><failure/></testcase>
<testcase name="two"><property name="browser" value="Firefox 2"/>
  <property name="seen" value="no"/><property name="transport" value="SSE"/></testcase>
</testsuite></testsuites>
"""


def browser_table(folder: Path, run: str) -> subprocess.CompletedProcess[str]:
    (folder / "docs").mkdir(exist_ok=True)
    (folder / "docs/transports.rst").write_text(PAGE)
    (folder / "run.xml").write_text(run)
    return subprocess.run(
        [sys.executable, TOOLS / "browser_table", "run.xml"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=30,
    )


def test_the_table_of_browsers_is_what_the_run_has_seen(tmp_path: Path) -> None:
    done = browser_table(tmp_path, RUN)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == PAGE.replace(
        "old",
        "=========  ========  =======\n"
        "transport  Chromium  Firefox\n"
        "=========  ========  =======\n"
        "SSE        live      no\n"
        "=========  ========  =======\n"
        "\n"
        "Last written after a run in Chromium 1 and Firefox 2.",
    )


@pytest.mark.parametrize(
    ("found", "instead", "reason"),
    [
        ('name="other"/>', 'name="other"><failure/></testcase>', "other failed before"),
        ("Firefox 2", "Chromium 1", "two tests have not seen the same"),
        ('"SSE"/></testcase>', '"X"/></testcase>', "SSE was not used in Firefox"),
        ('"seen"', '"heard"', "no test has used a transport"),
    ],
)
def test_there_is_no_table_of_half_a_run(
    tmp_path: Path, found: str, instead: str, reason: str
) -> None:
    assert found in RUN
    run = RUN.replace(found, instead)
    if reason.startswith("no test"):
        run = run.replace("<failure/>", "")
    done = browser_table(tmp_path, run)
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr
