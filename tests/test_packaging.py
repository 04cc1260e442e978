"""What is installed: the wheel, the Debian package, the units, and the page that explains it.

The Debian package is built once. Where changes are judged (CI=true), it is installed in a clean
Debian 12 and `docs/install.rst` is followed there word for word, up to a green doctor and a
publication that arrives through nginx; then it is upgraded, removed and purged.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from debian_root import DebianRoot
from docutils import nodes
from docutils.core import publish_doctree
from service_manager import read_unit

from push_server.cli import main as program
from push_server.settings import SETTINGS

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
UNITS = PACKAGING / "systemd"
DEBIAN = PACKAGING / "debian"
MAIN_JOB = DEBIAN / "tests/main-job"
JUDGED = os.environ.get("CI") == "true"
INSTALL = ROOT / "docs/install.rst"


def run(*command: str | Path, seconds: float = 120, **environment: str) -> str:
    """What a command prints, which must succeed."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, check=False, timeout=seconds,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [name for name in programs if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not on this machine: {', '.join(missing)}")


@pytest.fixture(scope="module", autouse=True)
def coming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DebianRoot | None]:
    """The clean Debian, on its way from the first test of this file on."""
    if not JUDGED:
        yield None
        return
    with DebianRoot(tmp_path_factory.mktemp("debian")) as root:
        yield root


# The wheel.


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy: setuptools builds in the folder of its source.
    source = folder / "source"
    source.mkdir()
    for name in ("LICENSE", "MANIFEST.in", "README.rst", "pyproject.toml"):
        shutil.copy(ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(ROOT / "push_server", source / "push_server", ignore=ignored)
    run(sys.executable, "-m", "build", "--outdir", folder, source)
    assert len(list(folder.glob("*.tar.gz"))) == 1
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_does_the_main_job_in_a_clean_environment(wheel: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    run(sys.executable, "-m", "venv", venv)
    run(venv / "bin/pip", "install", "-qq", "--disable-pip-version-check", wheel)
    (installed,) = venv.glob("lib/*/site-packages/push_server")
    source = wheel.parent / "source/push_server"
    # What push.js is joined of stays in the source.
    files = {path for path in source.rglob("*") if path.is_file() and path.parent.name != "page"}
    missing = {path for path in files if not (installed / path.relative_to(source)).exists()}
    assert missing == set()
    printed = run(MAIN_JOB, PUSH_SERVER=str(venv / "bin/push-server"), PYTHONPATH="")
    assert "published, received, resumed" in printed


# The manual pages and the completion.


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    run(sys.executable, PACKAGING / "man/make", folder)
    return folder


def read_page(page: Path) -> str:
    """What a reader sees, as one line."""
    shown = run("man", "--local-file", page, MANWIDTH="500", LC_ALL="C.UTF-8")
    return " ".join(shown.replace("‐", "-").replace("−", "-").split())


@needs("man")
def test_the_manual_knows_every_command_option_and_setting(pages: Path) -> None:
    commands = read_page(pages / "push-server.1")
    for name, command in program.commands.items():
        assert f"push-server {name} " in commands
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.opts[0] in commands
    settings = read_page(pages / "push-server.toml.5")
    for setting in SETTINGS:
        assert f" {setting} " in settings
    redirect = read_page(pages / "push-redirect.8")
    usage = run(sys.executable, ROOT / "iptables/push-redirect", "--help", COLUMNS="200")
    for option in re.findall(r"^  (--[a-z]+)", usage, re.MULTILINE):
        assert f" {option} " in redirect


@needs("man")
def test_the_manual_pages_are_well_formed(pages: Path) -> None:
    for page in pages.iterdir():
        done = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANROFFSEQ": "", "MANWIDTH": "80"},
            capture_output=True, text=True, check=True, timeout=30,
        )
        assert done.stderr == ""


# The units.


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units with programs that this machine has."""
    copies = []
    shipped = [ROOT / "iptables/push-redirect.service", *UNITS.glob("*.so*"), *UNITS.glob("*.ser*")]
    for unit in shipped:
        text = re.sub(r"^(Exec\w+=)(?!/bin/kill)\S+", r"\1/bin/true", unit.read_text(), flags=re.M)
        copies.append(tmp_path / unit.name)
        copies[-1].write_text(text)
    return copies


@needs("systemd-analyze")
def test_systemd_understands_every_line(units: list[Path]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *units],
        capture_output=True, text=True, check=False, timeout=60,
    )
    said = [line for line in done.stderr.splitlines() if "push-" in line]
    assert (done.returncode, said) == (0, [])


@needs("systemd-analyze")
@pytest.mark.parametrize("name", ["push-server", "push-redirect"])
def test_the_security_score_is_the_one_that_is_stated(units: list[Path], name: str) -> None:
    (unit,) = (unit for unit in units if unit.name == f"{name}.service")
    shown = run("systemd-analyze", "security", "--offline=yes", "--no-pager", unit)
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", shown)
    assert found is not None
    page = (ROOT / "docs/operations.rst").read_text("utf-8")
    stated = re.search(rf"^``{name}``\s+([0-9.]+)$", page, re.MULTILINE)
    assert stated is not None and found[1] == stated[1]


def test_the_sockets_have_the_default_addresses() -> None:
    for name, setting in (("push-server", "listen"), ("push-server-internal", "internal_listen")):
        unit = read_unit(UNITS / f"{name}.socket")
        assert unit["FileDescriptorName"] == [setting]
        assert unit["ListenStream"] == [SETTINGS[setting].default]
    service = read_unit(UNITS / "push-server.service")
    assert service["Sockets"] == ["push-server.socket push-server-internal.socket"]


# The rules of the redirect, as the kernel's own tools read them.


@pytest.mark.skipif(os.geteuid() != 0, reason="a network namespace of its own needs root")
@pytest.mark.parametrize(
    ("backend", "check"), [("nftables", "nft -c -f -"), ("iptables", "iptables-restore --test")]
)
def test_the_rules_are_read_without_complaint(backend: str, check: str) -> None:
    if shutil.which(check.split()[0], path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        pytest.skip(f"not on this machine: {check.split()[0]}")
    shown = run(
        sys.executable, ROOT / "iptables/push-redirect", "up", "--offline", "--backend", backend,
        "198.51.100.81",
    )
    (rules,) = re.findall(r"<<'END'\n(.*?)^END$", shown, re.DOTALL | re.MULTILINE)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", check], input=rules,
        env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
        capture_output=True, text=True, check=False, timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")


# The Debian package.


def may_build() -> bool:
    command = ["dpkg-checkbuilddeps", str(DEBIAN / "control")]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the source package and the binary one."""
    if not may_build():
        pytest.skip("the build dependencies of the Debian package are not installed")
    folder = tmp_path_factory.mktemp("deb")
    # A Python of a virtual environment is not the one that builds.
    path = os.environ["PATH"].replace(f"{Path(sys.executable).parent}:", "")
    run(PACKAGING / "build-deb", folder, seconds=300, PYTHON=sys.executable, PATH=path)
    return folder


@pytest.fixture(scope="module")
def package(built: Path) -> Path:
    (found,) = built.glob("*.deb")
    return found


def test_the_package_asks_for_what_the_server_needs() -> None:
    """Everything that pyproject.toml names is Debian's own in the version it names, or bundled."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    depends = (DEBIAN / "control").read_text().partition("Package:")[2]
    bundled = (PACKAGING / "bundled.txt").read_text()
    for requirement in wanted:
        found = re.fullmatch(r"([\w-]+)>=([\w.]+)(?:,<\w+)?", requirement)
        assert found is not None
        name, version = found.groups()
        pinned = re.search(rf"^{name}==(\S+)", bundled, re.MULTILINE)
        if pinned is None:
            assert f" python3-{name} (>= {version}),\n" in depends
        else:
            assert pinned[1] == version


@needs("lintian")
def test_lintian_finds_no_error(built: Path) -> None:
    (changes,) = built.glob("*.changes")
    found = run("lintian", "--allow-root", "--tag-display-limit", "0", changes).splitlines()
    assert [line for line in found if line.startswith("E:")] == []


def test_the_completion_works(package: Path, tmp_path: Path) -> None:
    run("dpkg-deb", "--extract", package, tmp_path)
    completion = tmp_path / "usr/share/bash-completion/completions/push-server"
    command = tmp_path / "push-server"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m push_server "$@"\n')
    command.chmod(0o755)
    typed = """
        source "$1"
        COMP_WORDS=(push-server check) COMP_CWORD=1
        _push_server_completion push-server
        echo "${COMPREPLY[@]}"
    """
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert run("bash", "-c", typed, "bash", completion, PATH=path) == "check-config\n"


# In a clean Debian.


@pytest.fixture(scope="module")
def debian(coming: DebianRoot | None, package: Path) -> DebianRoot:
    if coming is None:
        pytest.skip("only where changes are judged: it installs a Debian")
    shutil.copy(package, coming.ready().folder / "root")
    return coming


def blocks() -> list[str]:
    """The commands of the page, in order."""
    page = publish_doctree(
        INSTALL.read_text("utf-8"),
        settings_overrides={"report_level": 1, "halt_level": 1, "syntax_highlight": "none"},
    )
    return [
        block.astext() for block in page.findall(nodes.literal_block) if "sh" in block["classes"]
    ]


# What the page says in words, for whoever edits the file of the site.
EDIT = "sed -i 's,root /var/www/html;,& include snippets/push-cms-headers.conf;,'"
WAIT_FOR = 'for i in $(seq 100); do grep -q "$1" "$2" && exit 0; sleep 0.1; done; exit 1'


def test_the_page_leads_to_working_push(debian: DebianRoot) -> None:
    """In five minutes; the download of Debian itself is not counted."""
    begun = time.monotonic()
    install, *others = blocks()
    assert install == "apt install ./push-server_*.deb"
    debian.run(install.replace("install", "install --yes --no-install-recommends"), network=True)
    # There is nothing to serve yet, and nobody but the administrator makes that.
    assert list((debian.folder / "etc/push-server").iterdir()) == []
    debian.write("usr/local/bin/apt", "#!/bin/sh\ntest \"$*\" = 'install certbot'\n", 0o755)
    debian.write("usr/local/bin/wait_for", f"#!/bin/sh\n{WAIT_FOR}\n", 0o755)
    script = ["systemctl restart nginx"]
    for block in others:
        if block.startswith("push-server doctor"):
            block = f"{block} --json > ~/doctor.json"
        elif block.startswith("push-server listen"):
            block = f"{block} > ~/received 2> ~/listen.log &\nwait_for hello ~/listen.log"
        script.append(block)
        if block.startswith("ln -s ../sites-available/push-host.conf"):
            script.append(f"{EDIT} /etc/nginx/sites-available/cms")
    script.append("wait_for Hello ~/received")
    debian.run("\n".join(script))
    assert time.monotonic() - begun < 300
    checks = json.loads((debian.folder / "root/doctor.json").read_text())["checks"]
    assert [check for check in checks if check["status"] not in ("ok", "skipped")] == []
    (received,) = (debian.folder / "root/received").read_text().splitlines()
    assert json.loads(received)["data"] == {"text": "Hello"}
    config = debian.folder / "etc/push-server/push-server.toml"
    assert config.stat().st_mode & 0o777 == 0o640
    assert config.stat().st_gid == config.parent.stat().st_gid != 0


def rebuilt(package: Path, root: DebianRoot) -> str:
    """The same package under the next version; its name."""
    tree = root.folder / "root/next"
    run("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("-1\n", "-2\n", 1))
    run("dpkg-deb", "--build", "--root-owner-group", tree, root.folder / "root/next.deb")
    return "./next.deb"


def test_upgrade_remove_and_purge(debian: DebianRoot, package: Path) -> None:
    config = debian.folder / "etc/push-server/push-server.toml"
    data = debian.folder / "var/lib/push-server/push.db"
    if not config.exists():
        pytest.skip("needs what the test before has installed")
    written = config.read_bytes()
    listed = "dpkg-query --show --showformat='${Version} ${db:Status-Abbrev}' push-server"
    debian.run(f"/usr/bin/apt install --yes {rebuilt(package, debian)}")
    assert debian.run(listed).split()[0].endswith("-2")
    assert config.read_bytes() == written and data.exists()
    # It still starts, with what it had.
    debian.run(
        "systemctl start push-server; push-server listen --user 42 > again 2> listen.log &\n"
        "wait_for hello listen.log; push-server publish user:42 2; wait_for offset again"
    )
    debian.run("/usr/bin/apt remove --yes push-server")
    assert config.exists() and data.exists()
    assert not (debian.folder / "usr/bin/push-server").exists()
    assert not list((debian.folder / "lib/systemd/system").glob("push-*"))
    debian.run("/usr/bin/apt purge --yes push-server")
    assert not config.parent.exists() and not data.parent.exists()


# The container.


def test_the_container_is_set_up_as_the_unit_is(tmp_path: Path) -> None:
    text = (PACKAGING / "container/Containerfile").read_text()
    lines = dict(re.findall(r"^(USER|WORKDIR|CMD) (.*)$", text, re.MULTILINE))
    unit = read_unit(UNITS / "push-server.service")
    assert [lines["USER"], lines["WORKDIR"]] == [*unit["User"], *unit["WorkingDirectory"]]
    assert unit["ExecStart"][0].startswith(f"/usr/bin/{' '.join(json.loads(lines['CMD']))} ")
    # The server takes the settings that the file makes.
    config = tmp_path / "push-server.toml"
    run(sys.executable, "-m", "push_server", "init", "--config", config)
    variables = dict(re.findall(r"^ENV (\w+)=(\S+)$", text, re.MULTILINE))
    shown = run(
        sys.executable, "-m", "push_server", "check-config", "--config", config, **variables
    )
    assert 'internal_listen = "unix:/run/push-server/api.sock"' in shown
