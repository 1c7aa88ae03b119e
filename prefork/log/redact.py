"""Secrets in query strings: ``log.redact_query`` names parameters whose values are not written to a log."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from urllib.parse import unquote_plus

_PARAMETER = re.compile(r"(^|[?&;])([^?&;=#\s]+)=[^&;#\s]*")


def query_redactor(names: Collection[str]) -> Callable[[str], str]:
    """Return a function that replaces the values of these parameters by ``***``.

    It takes a query, or any text with targets or URLs in it. Names are compared without regard to case, and
    as the application will see them: ``%74oken`` is ``token``.
    """
    if not names:
        return str
    wanted = frozenset(name.lower() for name in names)

    def replace(match: re.Match[str]) -> str:
        before, name = match[1], match[2]
        return f"{before}{name}=***" if unquote_plus(name).lower() in wanted else match[0]

    def redact(text: str) -> str:
        return _PARAMETER.sub(replace, text) if "=" in text else text

    return redact
