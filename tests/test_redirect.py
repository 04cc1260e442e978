"""The port redirect: its texts, and what it does in network namespaces of its own.

Two hosts that exist only for a module: the site host has an address for the CMS and one for push,
the client is another host on the same wire. Nothing outside of them is touched. They need root;
the texts do not.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
from waiting import wait_until_up

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "iptables" / "push-redirect"
UNIT = ROOT / "iptables" / "push-redirect.service"
GOLDEN = Path(__file__).parent / "golden" / "redirect"
TOOLS = f"{os.environ['PATH']}:/usr/sbin:/sbin"

CMS = "198.51.100.71"
PUSH = "198.51.100.81"
PUSH6 = "2001:db8::81"
VISITOR = "198.51.100.11"
BOTH_PORTS = ("--port", "80:6660", "--port", "443:6643")

Done = subprocess.CompletedProcess[str]


def run(*command: str | Path, stdin: str = "", path: str = TOOLS) -> Done:
    return subprocess.run(
        command, input=stdin, env={**os.environ, "PATH": path},
        capture_output=True, text=True, check=False, timeout=60,
    )


def redirect(*arguments: str) -> Done:
    return run(sys.executable, PROGRAM, *arguments)


# The texts.


@pytest.mark.parametrize("backend", ["nftables", "iptables", "pf", "ipnat"])
def test_the_rules_are_these(backend: str) -> None:
    done = redirect("up", "--offline", "--backend", backend, PUSH, PUSH6, *BOTH_PORTS)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (GOLDEN / f"{backend}.sh").read_text("utf-8")


@pytest.mark.parametrize("backend", ["pf", "ipnat"])
def test_the_texts_for_freebsd_are_sound_shell(backend: str, tmp_path: Path) -> None:
    text = (GOLDEN / f"{backend}.sh").read_text("utf-8")
    assert run("sh", "-n", stdin=text).returncode == 0
    rules, script = re.findall(r"<<'END'\n(.*?)^END$", text, re.DOTALL | re.MULTILINE)
    assert run("sh", "-n", stdin=script).returncode == 0
    comments, lines = rules.count("# push-redirect: port"), rules.count("\nrdr ")
    assert comments == lines == {"pf": 4, "ipnat": 8}[backend]
    assert backend in re.findall("REQUIRE: (.*)", script)[0]

    # With a pretended rc.subr: start and stop call the firewall with our file, and no other.
    log = tmp_path / "log"
    for name in ("pfctl", "ipnat"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\n')
        (tmp_path / name).chmod(0o755)
    (tmp_path / "rc.subr").write_text(
        'load_rc_config() { :; }\nrun_rc_command() { eval "\\$${1}_cmd"; }\n'
    )
    script = script.replace("/etc/rc.subr", str(tmp_path / "rc.subr"))
    for command in ("start", "stop"):
        assert run("sh", "-eu", "-s", command, stdin=script,
                   path=f"{tmp_path}:{TOOLS}").returncode == 0
    file = "/usr/local/etc/push-redirect.rules"
    assert log.read_text().splitlines() == {
        "pf": [f"pfctl -q -a push-redirect -f {file}", "pfctl -q -a push-redirect -F nat"],
        "ipnat": [f"ipnat -r -f {file}", f"ipnat -f {file}", f"ipnat -r -f {file}"],
    }[backend]


def test_freebsd_down_is_printed_too() -> None:
    done = redirect("down", "--backend", "pf")
    assert done.returncode == 0
    assert done.stdout.startswith("service push_redirect stop\n")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["up", "push.example.com"], 1, "no IP address"),
        (["up", "127.0.0.1"], 1, "not an address that browsers can connect to"),
        (["up", "::"], 1, "not an address that browsers can connect to"),
        (["up", "fe80::1"], 1, "not an address that browsers can connect to"),
        (["up", "198.51.100.81/24"], 1, "no IP address"),
        (["up", "198.51.100.81; reboot"], 1, "no IP address"),
        (["up", "198.51.100.81\n-A INPUT -j DROP"], 1, "no IP address"),
        (["up", PUSH, "--port", "80:80"], 1, "two different ports"),
        (["up", PUSH, "--port", "0:6660"], 1, "two different ports"),
        (["up", PUSH, "--port", "80:66600"], 1, "two different ports"),
        (["up", PUSH, "--port", "80"], 2, "FROM:TO"),
        (["up", PUSH, "--port", "80:6660", "--port", "80:6661"], 1, "cannot go to two ports"),
        (["up", "--port", "80:6660"], 1, "needs an address"),
        (["up", "--file", "/nonexistent"], 1, "which address?"),
        (["up", PUSH, "--backend", "pf", "--apply"], 1, "only printed"),
        (["status", PUSH, "--backend", "ipnat"], 1, "only printed"),
        (["up", PUSH, "--backend", "ipnat", "--interface", "em0 x"], 2, "name of an interface"),
        (["down", PUSH], 2, "takes everything down"),
        (["up", PUSH, "--offline", "--apply"], 2, "--offline"),
        (["sideways"], 2, "invalid choice"),
    ],
)
def test_refused(arguments: list[str], status: int, words: str) -> None:
    done = redirect(*arguments)
    assert (done.returncode, done.stdout) == (status, "")
    assert words in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("line", [PUSH, f"{PUSH} 80", f"{PUSH} 80 6660 x", f"{PUSH} http 6660"])
def test_a_damaged_list_is_refused_by_file_and_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "list"
    file.write_text(f"# a list\n\n{line}\n")
    done = redirect("up", "--offline", "--file", str(file))
    assert done.returncode == 1
    assert f"{file}, line 3: " in done.stderr


def test_the_unit_is_sound(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace("/usr/sbin/push-redirect", str(PROGRAM)))
    done = run("systemd-analyze", "verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    done = run("systemd-analyze", "security", "--offline=yes", "--threshold=30", unit)
    assert done.returncode == 0, done.stdout[-200:]


def test_the_commands_in_the_document_are_commands() -> None:
    loader = SourceFileLoader("push_redirect", str(PROGRAM))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[loader.name] = module
    try:
        loader.exec_module(module)
        text = (PROGRAM.parent / "README.rst").read_text("utf-8")
        found = re.findall(r"^    push-redirect (.*)$", text, re.MULTILINE)
        assert len(found) >= 8
        for line in found:
            module.parse(shlex.split(line, comments=True))
    finally:
        del sys.modules[loader.name]


# Two hosts on one wire.


class Host:
    """A network namespace."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = TOOLS
        self.folder: Path | None = None
        self.processes: list[subprocess.Popen[bytes]] = []

    def run(self, *command: str | Path, stdin: str = "") -> Done:
        return run("ip", "netns", "exec", self.name, *command, stdin=stdin, path=self.path)

    def must(self, *command: str | Path, stdin: str = "") -> str:
        done = self.run(*command, stdin=stdin)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def redirect(self, *arguments: str) -> Done:
        return self.run(sys.executable, PROGRAM, *arguments)

    def start(self, *command: str | Path) -> "subprocess.Popen[bytes]":
        """A process of this host; it ends with the test."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, *command], cwd=self.folder,
            env={**os.environ, "PATH": self.path, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def serve(self, address: str, port: int, word: str, families: str = "both") -> None:
        """Something that listens here and answers every connection with a word."""
        process = self.start(sys.executable, "-c", _SERVER, address, str(port), word, families)
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"

    def ask(self, address: str, port: int = 80) -> str:
        """The word that is answered; empty if the connection is refused."""
        return self.run(sys.executable, "-c", _CLIENT, address, str(port)).stdout

    def rules(self) -> list[str]:
        """Every rule that nft and iptables know, in order and without counters.

        What iptables keeps in nf_tables is taken from iptables only, and chains of the kernel
        count for nothing: iptables leaves them behind, empty.
        """
        lines = []
        for table in sorted(self.must("nft", "list", "tables").splitlines()):
            if table not in ("table ip nat", "table ip6 nat"):
                lines += self.must("nft", "list", *table.split()).splitlines()
        for tool in ("iptables", "ip6tables"):
            saved = self.must(f"{tool}-save", "-t", "nat").splitlines()
            lines += [line for line in saved if re.match(r"-A|:\S+ -", line)]
        return [re.sub(r"packets \d+ bytes \d+|\[\d+:\d+\]", "", line) for line in lines]

    def stop_all(self) -> None:
        while self.processes:
            process = self.processes.pop()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            finally:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


_SERVER = """
import socket, sys
address, port, word, families = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
both = address == "::" and families == "both"
with socket.create_server((address, int(port)), family=family, dualstack_ipv6=both) as server:
    print("listening", flush=True)
    while True:
        client, _ = server.accept()
        try:
            with client:
                client.sendall((client.getpeername()[0] if word == "who" else word).encode())
        except OSError:
            pass
"""

_CLIENT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as server:
        print(server.makefile().read(), end="")
except ConnectionRefusedError:
    pass
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Host, Host]]:
    """The site host and the client host."""
    missing = [p for p in ("ip", "nft", "iptables") if shutil.which(p, path=TOOLS) is None]
    if missing:
        pytest.skip(f"not on this machine: {', '.join(missing)}")
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    site, client = (Host(f"push-test-{os.getpid()}-{role}") for role in ("site", "client"))
    made = [run("ip", "netns", "add", host.name) for host in (site, client)]
    try:
        if any(done.returncode for done in made):
            pytest.skip(f"no network namespaces here: {made[0].stderr}")
        site.must("ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire",
                  "netns", client.name)
        for host, addresses in ((site, [CMS, PUSH]), (client, [VISITOR])):
            host.must("ip", "link", "set", "lo", "up")
            host.must("ip", "link", "set", "wire", "up")
            for address in addresses:
                host.must("ip", "address", "add", f"{address}/24", "dev", "wire")
        # Without "nodad" an address may not be used for a second.
        site.must("ip", "address", "add", f"{PUSH6}/64", "dev", "wire", "nodad")
        client.must("ip", "address", "add", "2001:db8::11/64", "dev", "wire", "nodad")
        yield site, client
    finally:
        for host in (site, client):
            run("ip", "netns", "delete", host.name)


@pytest.fixture
def client(hosts: tuple[Host, Host]) -> Iterator[Host]:
    yield hosts[1]
    hosts[1].stop_all()


@pytest.fixture(params=["nftables", "iptables", "legacy"])
def backend(request: pytest.FixtureRequest) -> str:
    """iptables twice: with nf_tables below, as Debian has it, and with the old tables."""
    return str(request.param)


@pytest.fixture
def site(hosts: tuple[Host, Host], backend: str, tmp_path: Path) -> Iterator[Host]:
    """The site host with some rules of its own, and the back end to be tested."""
    host = hosts[0]
    host.folder = tmp_path
    tools = tmp_path / "tools"
    tools.mkdir()
    if backend == "legacy":
        for tool in ("iptables", "ip6tables"):
            for form in ("", "-save", "-restore"):
                found = shutil.which(f"{tool}-legacy{form}", path=TOOLS)
                if found is None:
                    pytest.skip("no iptables-legacy on this machine")
                (tools / f"{tool}{form}").symlink_to(found)
    host.path = f"{tools}:{TOOLS}"
    if host.run("iptables", "-t", "nat", "-S").returncode:
        pytest.skip("the kernel has no such tables")
    host.must("nft", "add table ip admins; add chain ip admins seen { type filter hook input"
              " priority 0; }; add rule ip admins seen tcp dport 9 drop comment \"theirs\"")
    host.must("iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "8080",
              "-m", "comment", "--comment", "theirs", "-j", "REDIRECT", "--to-ports", "80")
    yield host
    host.stop_all()
    host.run("nft", "flush", "ruleset")
    for tool in ("iptables", "ip6tables"):
        host.run(tool, "-t", "nat", "-F")
        host.run(tool, "-t", "nat", "-X")
    host.path = TOOLS


@pytest.fixture
def forced(backend: str) -> list[str]:
    return ["--backend", "nftables" if backend == "nftables" else "iptables"]


def test_the_programs_accept_what_is_shown(site: Host, backend: str) -> None:
    name = "nftables" if backend == "nftables" else "iptables"
    text = (GOLDEN / f"{name}.sh").read_text("utf-8")
    steps = re.findall(r"^(\S+)([^\n]*) <<'END'\n(.*?)^END$", text, re.DOTALL | re.MULTILINE)
    before = site.rules()
    for program, arguments, rules in steps:
        test = "-c" if program == "nft" else "--test"
        site.must(program, test, *arguments.split(), stdin=rules)
        assert site.run(program, test, *arguments.split(), stdin=rules + "junk\n").returncode
    assert site.rules() == before
    # And what is shown does what it says when it is pasted into a shell.
    site.must("sh", "-eu", stdin=text)
    assert site.redirect("up", PUSH, PUSH6, *BOTH_PORTS, "--backend", name).stderr.startswith(
        "push-redirect: already in force")


def test_answers_other_hosts_and_this_one(site: Host, client: Host, forced: list[str]) -> None:
    site.serve(CMS, 80, "cms")
    site.serve(PUSH, 6660, "push")
    site.serve(PUSH6, 6660, "push six")
    assert client.ask(PUSH) == ""
    done = site.redirect("up", PUSH, PUSH6, "--apply", *forced)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for host in (client, site):
        assert host.ask(PUSH) == "push"
        assert host.ask(PUSH6) == "push six"
        assert host.ask(CMS) == "cms"
    done = site.redirect("status", PUSH, PUSH6, *forced)
    assert done.returncode == 0
    assert done.stdout.count("in force\n") == 2
    assert site.redirect("down", "--apply", *forced).returncode == 0
    for host in (client, site):
        assert host.ask(PUSH) == host.ask(PUSH6) == ""
        assert host.ask(CMS) == "cms"


def test_the_server_sees_the_visitors_address(
    site: Host, client: Host, forced: list[str]
) -> None:
    site.serve(PUSH, 6660, "who")
    assert site.redirect("up", PUSH, "--apply", *forced).returncode == 0
    assert client.ask(PUSH) == VISITOR
    # Which of its own addresses this host takes is for its routes to say.
    assert site.ask(PUSH) in (CMS, PUSH)


def test_the_port_behind_can_be_closed(
    site: Host, client: Host, forced: list[str], backend: str
) -> None:
    site.serve(PUSH, 6660, "push")
    assert site.redirect("up", PUSH, "--apply", *forced).returncode == 0
    assert client.ask(PUSH, 6660) == "push"
    tool = "nft" if backend == "nftables" else "iptables"
    (line,) = re.findall(rf"^    ({tool} .*(?:origdstport|proto-dst).*)$",
                         (ROOT / "iptables/README.rst").read_text("utf-8"), re.MULTILINE)
    if tool == "nft":
        site.must("nft", "add table inet filter; add chain inet filter input"
                  " { type filter hook input priority 0; }")
    site.must("sh", "-c", line)
    assert client.ask(PUSH, 6660) == ""
    assert client.ask(PUSH) == site.ask(PUSH) == "push"
    if tool == "iptables":
        site.must("iptables", "-F", "INPUT")


def test_up_twice_is_up_once_and_down_leaves_no_trace(site: Host, forced: list[str]) -> None:
    before = site.rules()
    assert str(before).count("theirs") == 2
    assert site.redirect("up", PUSH, PUSH6, "--apply", *forced).returncode == 0
    once = site.rules()
    assert once != before
    done = site.redirect("up", PUSH, PUSH6, "--apply", *forced)
    assert (done.returncode, done.stderr) == (0, "push-redirect: already in force\n")
    assert site.rules() == once
    assert site.redirect("down", "--apply", *forced).returncode == 0
    assert site.rules() == before
    done = site.redirect("down", "--apply", *forced)
    assert (done.returncode, done.stderr) == (0, "push-redirect: nothing is in force\n")


def test_down_takes_an_empty_chain_too(site: Host, forced: list[str]) -> None:
    before = site.rules()
    if "nftables" in forced:
        site.must("nft", "add", "table", "inet", "push_redirect")
    else:
        site.must("ip6tables", "-t", "nat", "-N", "PUSH-REDIRECT")
    assert site.rules() != before
    assert site.redirect("down", "--apply", *forced).returncode == 0
    assert site.rules() == before


def test_up_makes_exactly_what_is_named(site: Host, client: Host, forced: list[str]) -> None:
    site.serve(PUSH, 6661, "second")
    assert site.redirect("up", PUSH, PUSH6, "--apply", *forced).returncode == 0
    done = site.redirect("up", PUSH, "--port", "80:6661", "--apply", *forced)
    assert done.returncode == 0
    assert f"no longer wanted: [{PUSH6}]:80 -> 6660" in done.stderr
    assert client.ask(PUSH) == "second"
    assert PUSH6 not in str(site.rules())


def test_a_dry_run_changes_nothing(site: Host, forced: list[str]) -> None:
    before = site.rules()
    done = site.redirect("up", PUSH, *forced)
    assert done.returncode == 0
    assert "nothing was changed" in done.stderr
    assert site.rules() == before
    site.must("sh", "-eu", stdin=done.stdout)
    up = site.rules()
    shown = site.redirect("down", *forced).stdout
    assert site.rules() == up != before
    site.must("sh", "-eu", stdin=shown)
    assert PUSH not in str(site.rules())


def test_an_address_that_is_not_here_is_refused(site: Host, forced: list[str]) -> None:
    before = site.rules()
    done = site.redirect("up", PUSH, "198.51.100.82", "--apply", *forced)
    assert done.returncode == 1
    assert "does not have the address 198.51.100.82" in done.stderr
    assert site.rules() == before


@pytest.mark.parametrize("address", [CMS, "0.0.0.0", "::"])
def test_the_address_of_the_cms_is_refused(site: Host, forced: list[str], address: str) -> None:
    site.serve(address, 80, "cms")
    before = site.rules()
    done = site.redirect("up", CMS, "--apply", *forced)
    assert done.returncode == 1
    assert re.search(r"python\S* \(pid \d+\) listens on ", done.stderr), done.stderr
    assert site.rules() == before
    shared = site.redirect("up", CMS, "--apply", "--shared", *forced)
    assert shared.returncode == (1 if address == CMS else 0)


@pytest.mark.parametrize(("listener", "address"), [("0.0.0.0", PUSH6), ("::", PUSH)])
def test_a_listener_of_the_other_family_is_in_nobodys_way(
    site: Host, forced: list[str], listener: str, address: str
) -> None:
    site.serve(listener, 80, "cms", families="one")
    assert site.redirect("up", address, "--apply", *forced).returncode == 0


def test_rules_in_our_place_that_are_not_ours_stop_us(site: Host, forced: list[str]) -> None:
    assert site.redirect("up", PUSH, "--apply", *forced).returncode == 0
    if "nftables" in forced:
        site.must("nft", "add rule inet push_redirect redirects tcp dport 81 counter")
    else:
        site.must("iptables", "-t", "nat", "-A", "PUSH-REDIRECT", "-j", "RETURN")
    before = site.rules()
    for command in (["up", PUSH], ["down"], ["status"]):
        apply = [] if command == ["status"] else ["--apply"]
        done = site.redirect(*command, *apply, *forced)
        assert done.returncode == 1
        assert "did not make; remove it first: " in done.stderr
    # Nor is the other back end taken then.
    assert site.redirect("up", PUSH, "--apply").returncode == 1
    assert site.rules() == before


def test_status_finds_what_is_wrong_and_up_repairs_it(site: Host, forced: list[str]) -> None:
    done = site.redirect("status", *forced, "--file", "/nonexistent")
    assert (done.returncode, "nothing is in force" in done.stdout) == (3, True)
    done = site.redirect("status", PUSH, *forced)
    assert (done.returncode, "not in force" in done.stdout) == (3, True)
    assert site.redirect("up", PUSH, "--apply", *forced).returncode == 0
    done = site.redirect("status", PUSH, *forced)
    assert (done.returncode, f"nothing answers on {PUSH}:6660" in done.stdout) == (3, True)
    site.serve(PUSH, 6660, "push")
    assert site.redirect("status", PUSH, *forced).returncode == 0
    done = site.redirect("status", PUSH6, *forced)
    assert (done.returncode, "in force, but not wanted" in done.stdout) == (3, True)

    if "nftables" in forced:
        site.must("nft", "flush chain inet push_redirect output")
    else:
        site.must("iptables", "-t", "nat", "-F", "OUTPUT")
    assert site.ask(PUSH) == ""
    done = site.redirect("status", PUSH, *forced)
    assert (done.returncode, "no hook leads there" in done.stdout) == (3, True)
    assert site.redirect("up", PUSH, "--apply", *forced).returncode == 0
    assert site.ask(PUSH) == "push"
    assert site.redirect("status", PUSH, *forced).returncode == 0


def test_saved_ones_come_back(site: Host, forced: list[str], tmp_path: Path) -> None:
    saved = ["--file", str(tmp_path / "push-redirect.conf")]
    done = site.redirect("save", "--apply", *saved, *forced)
    assert (done.returncode, "nothing is in force" in done.stderr) == (1, True)
    assert site.redirect("up", PUSH, PUSH6, *BOTH_PORTS, "--apply", *forced).returncode == 0
    up = site.rules()
    shown = site.redirect("save", *saved, *forced).stdout
    assert not Path(saved[1]).exists()
    assert site.redirect("save", "--apply", *saved, *forced).returncode == 0
    assert Path(saved[1]).read_text() in shown
    assert site.redirect("down", "--apply", *forced).returncode == 0
    assert site.redirect("up", "--apply", *saved, *forced).returncode == 0
    assert site.rules() == up


def test_the_backend_is_what_the_host_has(site: Host, backend: str, tmp_path: Path) -> None:
    shown = site.redirect("up", PUSH).stdout
    assert shown.startswith("nft ")
    # Once the rules are in one back end, all commands find them there.
    name = "nftables" if backend == "nftables" else "iptables"
    assert site.redirect("up", PUSH, "--apply", "--backend", name).returncode == 0
    assert site.redirect("status", PUSH).stdout.startswith(f"{name}: ")
    assert site.redirect("down", "--apply").returncode == 0
    assert PUSH not in str(site.rules())
    # A program that cannot do anything here counts for nothing.
    broken = tmp_path / "tools" / "nft"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    assert site.redirect("up", PUSH).stdout.startswith("iptables-restore ")
    broken.unlink()


# The whole: a push server behind the redirect.


@pytest.mark.parametrize("backend", ["nftables", "iptables"], indirect=True)
def test_a_push_server_behind_the_redirect(
    site: Host, client: Host, forced: list[str], tmp_path: Path
) -> None:
    config = tmp_path / "push-server.toml"
    config.write_text(f"""
        listen = "{PUSH}:6660"
        internal_listen = "127.0.0.1:6667"
        public_url = "http://push.example.com"
        site_origins = ["http://www.example.com"]
        broker = "memory:"
        token_keys = ["{'k' * 32}"]
        api_keys = {{cms = "whsec_{'A' * 43}="}}
    """)
    cli = [sys.executable, "-m", "push_server"]
    given = ["--config", str(config)]
    server = site.start(*cli, "serve", *given)
    assert site.redirect("up", PUSH, "--apply", *forced).returncode == 0
    curl = ["curl", "--silent", "--max-time", "10",
            "--resolve", f"push.example.com:80:{PUSH}", "--header", "Origin: http://www.example.com"]
    script = "http://push.example.com/push.js"
    wait_until_up(server, lambda: "push" in client.run(*curl, script).stdout)
    assert "push" in site.run(*curl, "http://push.example.com/push.js").stdout

    token = site.must("env", f"PYTHONPATH={ROOT}", *cli, "token", *given, "--user", "42",
                      "--subscribe", "node:*").strip()
    stream = client.start(
        "curl", "--silent", "--no-buffer", "--max-time", "60", *curl[4:],
        "--header", f"Authorization: Bearer {token}",
        "http://push.example.com/subscribe/stream?channel=node:7",
    )
    assert stream.stdout is not None
    assert b'"hello"' in stream.stdout.readline()
    # Connections that are open stay open without the rules, because there is another NAT rule;
    # new ones do not come through.
    for number, command in enumerate((["down"], ["up", PUSH])):
        assert site.redirect(*command, "--apply", *forced).returncode == 0
        reached = client.run(*curl, "http://push.example.com/push.js").returncode == 0
        assert reached == (command != ["down"])
        site.must("env", f"PYTHONPATH={ROOT}", *cli, "publish", *given, "node:7", str(number))
        assert f'"data":{number}'.encode() in stream.stdout.readline()
