"""Whole hosts for a test: network namespaces on a switch, and what runs in them."""
