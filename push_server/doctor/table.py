"""The checks, in the order of the way from the browser to the log.

To add one:
1. a function in the file of its subject, which yields findings and never raises what a broken
   set-up can cause;
2. a row here, with the checks whose faults it would only repeat;
3. the broken set-up that it finds, in tests/test_doctor.py;
4. its paragraph in docs/doctor.rst. Checks that a CMS can do too have the same name in
   cms_module/client/src/ConnectionTest.php.
"""

from push_server.doctor import internal, keys, machine, names, pages, storage, streams, way
from push_server.doctor.findings import Check

CHECKS = (
    Check("settings", "Settings", names.settings),
    Check("names", "Name of the push host", names.resolve),
    Check("address", "Address of the push host", names.address, ("names",)),
    Check("server", "Push server", way.server),
    Check("redirect", "Port redirect", way.redirect, ("address", "server")),
    Check("port", "Port", way.port, ("redirect",)),
    Check("tls", "Certificate", way.tls, ("port",)),
    Check("push_host", "The way to the push server", way.push_host, ("tls", "server")),
    Check("agent_cluster", "document.domain", pages.agent_cluster, ("push_host",)),
    Check("frame", "Embedding", pages.frame, ("push_host", "settings")),
    Check("sites", "Sites", pages.sites, ("settings",), after=("push_host",)),
    Check("token_key", "Token key", keys.token_key, ("push_host", "clock")),
    Check("forwarded", "Visitor's address", keys.forwarded, ("token_key",)),
    Check("streaming", "Streaming", streams.streaming, ("token_key", "api")),
    Check("websocket", "WebSocket", streams.websocket, ("token_key",)),
    Check("idle", "Silent connections", streams.idle, ("streaming",)),
    Check("api", "Internal API", internal.api, ("server", "broker")),
    Check("api_key", "API key", keys.api_key, ("api",)),
    Check("api_private", "Privacy of the API", internal.api_private, ("push_host",)),
    Check("clock", "Clocks", keys.clock, after=("push_host",)),
    Check("broker", "Log", storage.broker),
    Check("descriptors", "File descriptors", machine.descriptors, ("api",)),
    Check("kernel", "Kernel settings", machine.kernel, ("descriptors",)),
    Check("versions", "Versions", keys.versions, ("push_host",)),
)
