"""Names of header fields, and their keys in the environ (PEP 3333: CGI names)."""

from __future__ import annotations

# What clients and proxies send in the same few ways for many requests, whoever they are for.
_REPEATED_NAMES = """
    Accept Accept-Charset Accept-Encoding Accept-Language Access-Control-Request-Headers
    Access-Control-Request-Method Cache-Control Connection Content-Type DNT Expect Host Keep-Alive Origin Pragma
    Priority Purpose Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform Sec-Fetch-Dest Sec-Fetch-Mode
    Sec-Fetch-Site Sec-Fetch-User Sec-GPC TE Transfer-Encoding Upgrade-Insecure-Requests User-Agent Via
    X-Forwarded-Host X-Forwarded-Port X-Forwarded-Proto X-Requested-With
"""
# What is common, too, and new with each request, with each user, or a secret.
_OTHER_NAMES = """
    Authorization Content-Encoding Content-Length Cookie Date Forwarded From If-Match If-Modified-Since
    If-None-Match If-Range If-Unmodified-Since Range Referer Traceparent Tracestate X-Forwarded-For X-Real-IP
    X-Request-ID
"""


def environ_key(name: str) -> str:
    """Return the environ's key for a field name."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else "HTTP_" + key


REPEATED_KEYS = frozenset(environ_key(name) for name in _REPEATED_NAMES.split())
"""The keys of those fields whose lines are worth remembering."""

COMMON_NAMES = frozenset(
    spelling
    for name in (_REPEATED_NAMES + _OTHER_NAMES).split()
    for spelling in (name, name.lower(), name.title())
)
"""As browsers spell them, and as h2 gateways and Go do."""
