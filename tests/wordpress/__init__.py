"""A real WordPress for tests: see site.py."""
