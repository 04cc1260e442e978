"""A push server that a service manager starts, with the sockets it has opened.

    push = Service(heartbeat=1)
    with push.managed() as manager:
        manager.start()
        push.api("publish", …)      # as with any other server of the harness

Imported by the tests of what systemd and the server do together.
"""

import os
import shutil
import sys
from pathlib import Path

from harness import PushServer
from service_manager import ServiceManager

ROOT = Path(__file__).resolve().parent.parent
UNITS = ROOT / "packaging/systemd"
SERVE = [sys.executable, "-m", "push_server", "serve"]


class Service(PushServer):
    """Its configuration, its keys and clients for it."""

    def remove(self) -> None:
        shutil.rmtree(self.folder)

    def managed(self, *options: str, **addresses: list[str]) -> ServiceManager:
        self.write_config()
        listen = {
            "listen": [f"127.0.0.1:{self.port}"],
            "internal_listen": [f"127.0.0.1:{self.internal_port}"],
            **addresses,
        }
        program = [*SERVE, "--config", str(self.config_file), *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return ServiceManager(
            UNITS, program=program, listen=listen, environment=environment, log=self.log_file
        )

    @property
    def log_file(self) -> Path:
        return self.folder / "log"
