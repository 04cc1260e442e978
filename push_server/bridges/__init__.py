"""Bridges: ways for messages between this server and the systems of other programs.

Each is off until it is configured, runs beside the hub and never makes it wait, comes back by
itself, and shows in `stats` and ``/metrics`` as ``bridge.…``. What comes in goes through `intake`
and from there the way of every publication.
"""
