"""The page as bytes: one document that loads nothing, under a policy that lets nothing else run."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256

import pytest
from test_admin_app import ask, environ

from prefork.admin.page import joined

DOCUMENT = joined().body.decode()
POLICY = dict(joined().headers)["Content-Security-Policy"]


def test_everything_is_in_the_document():
    addresses = re.findall(r"""(?:src|href|action)="([^"]*)"|url\(([^)]*)""", DOCUMENT)
    own = re.compile(r"#[\w-]+|data:,|status|metrics|healthz|readyz")
    assert not [address for address in addresses if not own.fullmatch("".join(address))]
    assert set(re.findall(r"\w+://[^\"'` ]*", DOCUMENT)) == {"http://www.w3.org/2000/svg"}, (
        "a name, not loaded"
    )
    assert "<!-- style -->" not in DOCUMENT
    assert "<!-- script -->" not in DOCUMENT


@pytest.mark.parametrize("element", ["script", "style"])
def test_policy_names_what_is_in_it(element):
    (content,) = re.findall(rf"<{element}[^>]*>(.*?)</{element}>", DOCUMENT, re.DOTALL)
    digest = b64encode(sha256(content.encode()).digest()).decode()
    assert f"{element}-src 'sha256-{digest}';" in POLICY


def test_policy_is_strict():
    assert "unsafe" not in POLICY
    for rule in ("default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in POLICY.split("; ")
    assert not re.search(r"<[^>]+\s(on\w+|style)=", DOCUMENT), "the policy would block it"
    assert not re.search(
        r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval)\b\s*[=(]", DOCUMENT
    )


def test_the_application_serves_it():
    answer = ask(environ("/"))
    assert (answer.status, answer.content_type) == ("200 OK", "text/html; charset=utf-8")
    assert answer.body == joined().body
    assert ask(environ("/", peer="10.0.0.1")).status == "403 Forbidden"
