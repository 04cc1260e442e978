"""A clean Debian 12 in a folder, to install the package in, with a site on it.

    with DebianRoot(folder) as root:
        root.ready().run("apt install ./push-server_*.deb", network=True)
        root.run("push-server init …; systemctl start push-server; …")

What runs in it sees its own files, its own processes and, without `network`, its own loopback
with the addresses of `docs/install.rst` and nothing else; all of it ends with the script. systemd
cannot run there. `service_manager.py` stands in for it, and a script of three lines for certbot:
it looks whether Let's Encrypt could prove the name, and signs with an authority of its own.

Needs root and mmdebstrap. Imported by tests/test_packaging.py.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Self

TESTS = Path(__file__).resolve().parent
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
# What a Debian that serves a site has, and our page does not install.
SITE = ("ca-certificates", "curl", "iproute2", "nginx-light", "openssl", "procps")
ADDRESSES = ("198.51.100.71/32", "198.51.100.81/32", "2001:db8::71/128", "2001:db8::81/128")
HOSTS = "127.0.0.1 localhost\n198.51.100.71 www.example.com\n198.51.100.81 push.example.com\n"

SYSTEMCTL = """#!/bin/sh
case "$1 $2" in
    "restart nginx") nginx -s stop 2>/dev/null; nginx ;;
    # A reload takes a moment; whoever follows a page by hand does not notice.
    "reload nginx") nginx -s reload; sleep 1 ;;
    *) exec python3 /usr/local/lib/service_manager.py "$@" ;;
esac
"""

CERTBOT = """#!/bin/sh
set -eu
well_known=/var/www/letsencrypt/.well-known/acme-challenge
mkdir -p $well_known
echo proof > $well_known/test
[ "$(curl -s http://push.example.com/.well-known/acme-challenge/test)" = proof ]
exec sign push.example.com
"""

SIGN = """#!/bin/sh
set -eu
mkdir -p /etc/letsencrypt/live/$1
cd /etc/letsencrypt/live/$1
openssl req -newkey rsa:2048 -nodes -keyout privkey.pem -subj /CN=$1 -addext subjectAltName=DNS:$1 |
    openssl x509 -req -CA /root/ca.pem -CAkey /root/ca.key -days 90 -copy_extensions copy \\
        -out fullchain.pem
"""

CMS = """server {
    listen 198.51.100.71:443 ssl;
    server_name www.example.com;
    ssl_certificate     /etc/letsencrypt/live/www.example.com/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/www.example.com/privkey.pem;
    root /var/www/html;
}
"""

SET_UP = """
rm /etc/nginx/sites-enabled/default
echo '<p>A site' > /var/www/html/index.html
openssl req -x509 -newkey rsa:2048 -nodes -keyout /root/ca.key -out /root/ca.pem -days 90 \\
    -subj /CN=test
cp /root/ca.pem /usr/local/share/ca-certificates/test.crt
update-ca-certificates
sign www.example.com
ln -s ../sites-available/cms /etc/nginx/sites-enabled/
"""

ALONE = """
# What Debian sets there is about the whole kernel, which is not ours.
rm -f /usr/lib/sysctl.d/* /etc/sysctl.d/99-sysctl.conf
ip link set lo up
for address in {addresses}; do ip address add $address dev lo; done
"""


class DebianRoot:
    """A folder with a Debian in it, which comes in the background until it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "root"
        self._ready = False
        source = next(path for path in SOURCES if Path(path).exists())
        self._coming = subprocess.Popen(
            ["mmdebstrap", "--quiet", "--variant=apt", "--mode=root", "--skip=cleanup/apt",
             "--dpkgopt=force-unsafe-io",
             f"--include={','.join(SITE)}", "bookworm", self.folder, source],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._coming.terminate()  # takes away what there is, if it is not done yet
        self._coming.wait(60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ready(self) -> Self:
        """The same, when everything is there."""
        if self._ready:
            return self
        assert self._coming.wait(900) == 0
        self._ready = True
        for path, text, mode in (
            ("usr/local/bin/systemctl", SYSTEMCTL, 0o755),
            ("usr/local/bin/certbot", CERTBOT, 0o755),
            ("usr/local/bin/sign", SIGN, 0o755),
            ("etc/nginx/sites-available/cms", CMS, 0o644),
            ("etc/hosts", HOSTS, 0o644),
        ):
            self.write(path, text, mode)
        shutil.copy(TESTS / "service_manager.py", self.folder / "usr/local/lib")
        self.run(SET_UP)
        return self

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the root."""
        target = self.folder / path
        target.write_text(text)
        target.chmod(mode)

    def run(self, script: str, *, network: bool = False, seconds: float = 300) -> str:
        """What a script prints that runs in the root, as its administrator."""
        # The first process of its own world: whatever it leaves behind ends with it.
        apart = ["unshare", "--pid", "--fork", "--kill-child", f"--mount-proc={self.folder}/proc"]
        if not network:
            apart.append("--net")
            script = ALONE.format(addresses=" ".join(ADDRESSES)) + script
        done = subprocess.run(
            [*apart, "chroot", self.folder, "sh", "-euc", f"cd /root\n{script}"],
            env={
                "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "DEBIAN_FRONTEND": "noninteractive",
                "LC_ALL": "C.UTF-8",
            },
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=seconds,
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done.stdout
