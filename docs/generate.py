"""Write the generated parts of the documentation, or check that they are fresh.

Run by ``make docs`` and, with ``--check``, by ``make check``. A generated part stands in its page between
``<!-- generated: NAME -->`` and ``<!-- /generated -->``; the function that makes it is in ``PARTS``.
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent

PARTS: dict[str, str] = {
    # name in the marker: module:function that returns Markdown, whole or line by line
    "death-reasons": "prefork.master.obituary:reasons_as_markdown",
    "events": "prefork.log.events:as_markdown",
    "gunicorn-flags": "prefork.cli.gunicorn:reference",
    "metrics": "prefork.admin.metric_table:as_markdown",
    "refusals": "prefork.figures:refusals_as_markdown",
    "worker-states": "prefork.master.worker_states:as_markdown",
}

BLOCK = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def fill(page: str) -> str:
    """Return the page with each generated part made anew."""

    def produce(block: re.Match[str]) -> str:
        module, _, function = PARTS[block["name"]].partition(":")
        made = getattr(importlib.import_module(module), function)()
        text = made if isinstance(made, str) else "\n".join(made)
        return f"{block[1]}{text.strip()}\n{block[3]}"

    return BLOCK.sub(produce, page)


def main() -> int:
    """Return 1 if ``--check`` found a stale page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is stale")
    check = parser.parse_args().check
    stale = 0
    for path in sorted(DOCS.rglob("*.md")):
        page = path.read_text()
        fresh = fill(page)
        if fresh != page:
            stale += 1
            print(f"{path.relative_to(DOCS.parent)}: {'stale; run: make docs' if check else 'written'}")
            if not check:
                path.write_text(fresh)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
