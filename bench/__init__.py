"""``make bench``: prefork beside other servers, measured in alternating runs, written to docs/performance.md.

``servers`` knows how each is installed and started, ``scenarios`` what is asked of ``app``, ``load.c`` asks it,
``measure`` counts what that costs, ``report`` and ``plot`` write the page. ``floor.c`` is what no server can undercut.
"""
