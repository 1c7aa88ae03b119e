"""The page at ``/``: its files, joined into one document. Runs in the admin process.

The sources are in ``pagefiles/``: one template, one style sheet, and the script in parts that are joined in the order
of their names. Nothing is fetched from elsewhere, and the policy names style and script by their hashes: so even if
text of a client got into the document as HTML, it could neither run nor load anything. The only request that the page
makes is ``GET status``.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from prefork.admin.answer import Answer, Handler


def load() -> Handler:
    """Read the files once; the page is the same for everybody."""
    answer = joined()
    return lambda source, environ: answer


def joined() -> Answer:
    """Return the page, with the policy that fits it."""
    folder = files("prefork.admin") / "pagefiles"
    sources = {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.is_file()}
    style = sources["page.css"]
    script = "\n".join(text for name, text in sorted(sources.items()) if name.endswith(".js"))
    document = sources["page.html"].replace("<!-- style -->", style).replace("<!-- script -->", script)
    headers = (
        ("Content-Security-Policy", _policy(style, script)),
        ("Cross-Origin-Opener-Policy", "same-origin"),
    )
    return Answer(document.encode(), "text/html; charset=utf-8", headers=headers)


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "connect-src 'self'",
            "img-src data:",  # the icon, in the colour of the state
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # the browser refuses innerHTML and its relatives
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
