"""``python -m push_server`` is ``push-server``."""

from push_server.cli import main

main(prog_name="push-server")
