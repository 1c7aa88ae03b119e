"""``make bench``: prefork beside other servers, measured in alternating runs, written to docs/performance.md.

``servers`` knows how each is installed and started, ``load.c`` sends requests, ``measure`` counts what they cost,
``report`` writes the page.
"""
