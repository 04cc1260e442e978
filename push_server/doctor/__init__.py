"""``push-server doctor``: walks the way from a browser to the server and names the hop that fails.

One file per subject, one function per check, one table (`table.py`). A check looks at one thing and
says what it found; it runs only if the checks it needs found nothing wrong, so that one fault is
named once and not again by everything behind it.
"""
