"""Push for CMS sites: a server that holds the browsers' long-lived connections.

`docs/design.rst` has the floors this package is built in; `README.rst` has the reading order.
"""

__version__ = "0.1.0"
