"""Interval poll: asked again and again, answered at once with what has come since.

The last resort that is always possible, and the most expensive one: most answers are empty. No
client of ours falls back to it by itself.
"""

from push_server.transports.poll import Poll


class Interval(Poll):
    """A poll that is never held."""

    name = "interval"
    waits = False
