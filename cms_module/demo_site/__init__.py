"""Linden House: a small site with push, to look at, to try and to copy from.

It stands for the CMS. It knows of the push server only what any site does: the token it signs,
the API it calls through `push_server.client`, and the script its pages include. Everything it
remembers, it remembers in memory.

    python -m cms_module.demo_site.run     the push server and the site, ready to try
    python -m cms_module.demo_site         the site alone, beside a push server that runs already

Reading order: `tokens`, `memory`, `web`, `door`, `site`, then the pages in ``templates`` and
``static``.
"""
