"""What is believed of X-Forwarded-* and Forwarded, and from whom."""

from __future__ import annotations

import pytest

from prefork.http.head import MEMO_BYTES, HeadLimits, HeadParser
from prefork.http.refusal import BadRequest
from prefork.http.sender import ProxyPolicy, Stranger, TrustedProxy
from prefork.http.trust import Trust

TRUSTED = ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "unix")
ALL = ("for", "proto", "host", "port", "prefix")


def parse(
    *fields: str,
    trusted: bool = True,
    form: str = "x-forwarded",
    use: tuple[str, ...] = ALL,
    drop: bool = True,
    allow: tuple[str, ...] = (),
    request_id: bool = True,
    line: str = "GET / HTTP/1.1",
) -> dict[str, str]:
    policy = ProxyPolicy(TRUSTED, form, use, drop, allow, request_id)
    sender = TrustedProxy(policy, Trust(TRUSTED), "http") if trusted else Stranger(policy)
    parser = HeadParser(HeadLimits(), sender)
    raw = "\r\n".join([line, "Host: inside:8000", *fields, "", ""]).encode("latin-1")
    first, second = parser.parse(raw), parser.parse(raw)
    assert first == second
    # Remembered as it is meant, not as it was sent.
    assert len(raw) > MEMO_BYTES or parser.known(raw) is second
    return dict(first.environ)


def test_whom_to_trust() -> None:
    trust = Trust(TRUSTED)
    inside = ("10.1.2.3", "192.0.2.1", "::ffff:10.0.0.1", "2001:db8::7", "unix")
    outside = ("11.0.0.1", "192.0.2.2", "::1", "", "unknown", "10.0.0", "::ffff:11.0.0.1", "10.0.0.1:80")
    for _ in range(2):  # looked up, then remembered
        assert [peer in trust for peer in inside] == [True] * 5
        assert [peer in trust for peer in outside] == [False] * 8
    assert "unix" not in Trust(("0.0.0.0/0", "::/0"))
    assert "10.0.0.1" not in Trust(())


@pytest.mark.parametrize(
    ("x_forwarded_for", "address", "port"),
    [
        ("203.0.113.9", "203.0.113.9", ""),
        ("6.6.6.6, 203.0.113.9", "203.0.113.9", ""),  # what the client invented is to the left
        ("<script>, 203.0.113.9", "203.0.113.9", ""),
        ("203.0.113.9, 10.0.0.5,192.0.2.1", "203.0.113.9", ""),
        ("10.9.9.9, 10.0.0.5", "10.9.9.9", ""),  # all trusted: the first
        ("203.0.113.9:4711", "203.0.113.9", "4711"),
        ("[2001:DB9::0:1]:4711", "2001:db9::1", "4711"),
        ("2001:db9::1", "2001:db9::1", ""),
        ("::ffff:203.0.113.9", "203.0.113.9", ""),
        ("6.6.6.6, unknown, 10.0.0.5", "", ""),
        ("6.6.6.6, _hidden:_p", "", ""),
        ("203.0.113.9, unix:", "203.0.113.9", ""),
        (" , 203.0.113.9 ,", "203.0.113.9", ""),
    ],
)
def test_the_client_of_x_forwarded_for(x_forwarded_for: str, address: str, port: str) -> None:
    environ = parse(f"X-Forwarded-For: {x_forwarded_for}")
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (address, port)
    assert environ["HTTP_X_FORWARDED_FOR"] == x_forwarded_for.strip()  # as it was, for middleware


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (["X-Forwarded-Proto: HTTPS"], {"wsgi.url_scheme": "https"}),
        (["X-Forwarded-Proto: https, https"], {"wsgi.url_scheme": "https"}),
        (
            ["X-Forwarded-Host: shop.example", "X-Forwarded-Proto: https"],
            {"HTTP_HOST": "shop.example", "SERVER_NAME": "shop.example", "SERVER_PORT": "443"},
        ),
        (
            ["X-Forwarded-Host: [::5]:8443", "X-Forwarded-Proto: https", "X-Forwarded-Port: 8443"],
            {"HTTP_HOST": "[::5]:8443", "SERVER_NAME": "[::5]", "SERVER_PORT": "8443"},
        ),
        (
            ["X-Forwarded-Host: shop.example", "X-Forwarded-Port: 8080"],
            {"HTTP_HOST": "shop.example:8080", "SERVER_PORT": "8080"},
        ),
        (
            ["X-Forwarded-Proto: https", "X-Forwarded-Port: 443"],
            {"HTTP_HOST": "inside", "SERVER_PORT": "443"},
        ),
        (["X-Forwarded-Prefix: /shop%20a/"], {"SCRIPT_NAME": "/shop a"}),
        (["X-Forwarded-Prefix: /"], {"SCRIPT_NAME": ""}),
        (["X-Forwarded-For:"], {"REMOTE_ADDR": None}),
    ],
)
def test_the_other_parts(fields: list[str], expected: dict[str, str | None]) -> None:
    environ = parse(*fields)
    assert {key: environ.get(key) for key in expected} == expected
    unused = parse(*fields, use=())
    ours = {"REMOTE_ADDR", "wsgi.url_scheme", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME"}
    assert not unused.keys() & ours
    assert unused["HTTP_HOST"] == "inside:8000"


def test_a_forwarded_host_wins_over_the_target() -> None:
    line = "GET http://inside:8000/ HTTP/1.1"
    assert parse("X-Forwarded-Host: shop.example", line=line)["HTTP_HOST"] == "shop.example"
    assert parse(line=line)["HTTP_HOST"] == "inside:8000"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ("for=203.0.113.9", ("203.0.113.9", "", None, "inside:8000")),
        ('For="[2001:db9::1]:4711";proto=https', ("2001:db9::1", "4711", "https", "inside:8000")),
        (
            "for=6.6.6.6;host=evil, for=203.0.113.9;host=shop.example;proto=https, for=10.0.0.5;proto=http",
            ("203.0.113.9", "", "https", "shop.example"),
        ),
        # What the outermost proxy left out the next one tells; what the client made up does not count.
        (
            "for=6.6.6.6;proto=http, for=203.0.113.9,for=10.0.0.5;proto=https;;",
            ("203.0.113.9", "", "https", "inside:8000"),
        ),
        ('for="_\\hidden";by=x', ("", "", None, "inside:8000")),
        ("proto=https", (None, None, "https", "inside:8000")),
        (",", (None, None, None, "inside:8000")),
    ],
)
def test_forwarded(forwarded: str, expected: tuple[str | None, ...]) -> None:
    environ = parse(f"Forwarded: {forwarded}", form="forwarded", use=("for", "proto", "host"))
    keys = ("REMOTE_ADDR", "REMOTE_PORT", "wsgi.url_scheme", "HTTP_HOST")
    assert tuple(environ.get(key) for key in keys) == expected


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (["X-Forwarded-Proto: https, http"], "contradictory values of X-Forwarded-Proto"),
        (["X-Forwarded-Proto: https", "X-Forwarded-Proto: http"], "contradictory values"),
        (["X-Forwarded-Host: a, b"], "contradictory values of X-Forwarded-Host"),
        (["X-Forwarded-Host: a:1", "X-Forwarded-Port: 2"], "contradicts the host"),
        (["X-Forwarded-For: 203.0.113.9", "Forwarded: for=6.6.6.6"], "contradict each other in address"),
        (["X-Forwarded-Proto: http", "Forwarded: proto=https"], "contradict each other in scheme"),
        (["X-Forwarded-For: 203.0.113.9, 10.0.0.1x"], "malformed address"),
        (["X-Forwarded-For: 999.0.113.9"], "malformed address"),
        (["X-Forwarded-For: fe80::1%eth0"], "malformed address"),
        (["X-Forwarded-Proto: gopher"], "unknown forwarded scheme"),
        (["X-Forwarded-Host: a/b"], "malformed forwarded host"),
        (["X-Forwarded-Port: 0"], "malformed forwarded port"),
        (["X-Forwarded-Port: 65536"], "malformed forwarded port"),
        (["X-Forwarded-Prefix: //evil.example"], "malformed X-Forwarded-Prefix"),
        (["X-Forwarded-Prefix: shop"], "malformed X-Forwarded-Prefix"),
        (["Forwarded: for=1.2.3.4 5"], "malformed Forwarded"),
        (['Forwarded: for="1.2.3.4'], "malformed Forwarded"),
        (["Forwarded: for=1.2.3.4;for=1.2.3.5"], "more than one for"),
        (["Forwarded: for=1.2.3.4;FOR=1.2.3.4"], "more than one for"),
    ],
)
def test_refused(fields: list[str], told: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse(*fields)
    assert refusal.value.status == 400
    assert told in refusal.value.reason
    # Nobody listens to a stranger, so nothing it says can be wrong.
    assert not any("FORWARDED" in key for key in parse(*fields, trusted=False))
    assert parse(*fields, form="off").get("REMOTE_ADDR") is None


def test_long_values_take_linear_time() -> None:
    """Quadratic time would be minutes here, and exponential time for ever."""
    for value in (
        "a" * 30_000 + " b",
        "for=" + "a" * 30_000 + '"',
        " " * 30_000 + "b",
        'for="' + "\\" * 29_999,
    ):
        with pytest.raises(BadRequest):
            parse(f"Forwarded: {'x=y;' + value}")
    assert parse(f"X-Forwarded-For: {', '.join(['10.0.0.1'] * 3000)}")["REMOTE_ADDR"] == "10.0.0.1"


def test_both_forms_may_say_the_same() -> None:
    fields = ("X-Forwarded-For: 203.0.113.9", 'Forwarded: for="203.0.113.9:4711";proto=https')
    assert parse(*fields)["REMOTE_ADDR"] == "203.0.113.9"
    assert "wsgi.url_scheme" not in parse(*fields)
    assert parse(*fields, form="forwarded")["wsgi.url_scheme"] == "https"


def test_what_strangers_may_not_send() -> None:
    names = (
        *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Ssl", "X-Forwarded-Anything", "Forwarded"),
        *("X-Real-IP", "X-Url-Scheme", "X-Original-URL", "X-Rewrite-URL", "Front-End-Https", "Remote-User"),
    )
    fields = [f"{name}: https" for name in names]
    keys = {"HTTP_" + name.upper().replace("-", "_") for name in names}
    assert not parse(*fields, trusted=False).keys() & keys
    passed = parse(*fields, trusted=False, drop=False)
    assert keys <= passed.keys()
    assert "wsgi.url_scheme" not in passed
    assert parse("X-Role: a", "X-Forward: b", trusted=False)["HTTP_X_ROLE"] == "a"


def test_names_with_underscores() -> None:
    both = ("X_Role: admin", "X-Role: forged", "X_Other: x")
    assert "HTTP_X_ROLE" not in parse("X_Role: admin")
    # From the proxy only the one that is allowed; from others neither, since the application believes the key.
    environ = parse(*both, allow=("X_Role",))
    assert environ["HTTP_X_ROLE"] == "admin"
    assert "HTTP_X_OTHER" not in environ
    assert "HTTP_X_ROLE" not in parse(both[1], allow=("x_role",))
    assert "HTTP_X_ROLE" not in parse(*both, trusted=False, allow=("X_Role",))
    assert parse(*both, trusted=False, drop=False, allow=("X_Role",))["HTTP_X_ROLE"] == "forged"
    assert "HTTP_USER_AGENT" not in parse("User-Agent: x", allow=("User_Agent",))


def test_request_ids() -> None:
    key = "prefork.request_id"
    assert parse("X-Request-ID: a1-B_2/=+.:@~")[key] == "a1-B_2/=+.:@~"
    assert key not in parse("X-Request-ID: a", trusted=False)
    assert key not in parse("X-Request-ID: a", request_id=False)
    for bad in ("a b", 'a"', "a, b", "x" * 129, "", "é"):
        assert key not in parse(f"X-Request-ID: {bad}")
