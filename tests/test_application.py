"""Loading the application, its errors, and what an import leaves behind."""

from __future__ import annotations

import os
import socket
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from prefork.application import load_application
from prefork.errors import ApplicationError
from prefork.leftovers import leftovers

GOOD = """
def application(environ, start_response):
    return [b"application"]

app = 3

class Site:
    def __call__(self, environ, start_response):
        return [b"site"]

    def method(self, environ, start_response):
        return [b"method"]

site = Site()

def create_app(name="default", *, debug=False):
    return lambda environ, start_response: [name.encode(), str(debug).encode()]

def explode():
    raise LookupError("no settings")

async def asgi(scope, receive, send): ...

class Asgi:
    async def __call__(self, scope, receive, send): ...

asgi_instance = Asgi()
number = 7
"""

FILES = {
    "goodshop/__init__.py": "",
    "goodshop/wsgi.py": GOOD,
    "goodshop/relative.py": "from .wsgi import site as app\n",
    "onlyapp.py": "app = lambda environ, start_response: []\n",
    "onlyfactory.py": "def create_app():\n    pass\n",
    "scripts/my-site.py": "import beside\napplication = beside.application\n",
    "scripts/beside.py": "def application(environ, start_response):\n    return [b'beside']\n",
    "scripts/code.py": "def application(environ, start_response):\n    return [b'not the stdlib']\n",
    "raises.py": "from raiser import boom\nboom()\n",
    "raiser.py": "def boom():\n    raise RuntimeError('broken pipe dream')\n",
    "syntax.py": "def application(environ, start_response)\n    pass\n",
    "inner.py": "import not_installed_anywhere\n",
    "exits.py": "import sys\nsys.exit('no config')\n",
    "interrupts.py": "raise KeyboardInterrupt\n",
    "badpkg/__init__.py": "import badpkg.gone\n",
}


@pytest.fixture(autouse=True)
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of applications, as working directory and on ``sys.path``; no module of it is left loaded."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def call(app: Callable[..., object]) -> object:
    return app({}, lambda status, headers: None)


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("goodshop.wsgi:application", [b"application"]),
        ("goodshop.wsgi", [b"application"]),
        ("goodshop.wsgi:site", [b"site"]),
        ("goodshop.wsgi:site.method", [b"method"]),
        ("onlyapp", []),
        ("goodshop.wsgi:create_app()", [b"default", b"False"]),
        ("goodshop.wsgi:create_app('x:y', debug=True)", [b"x:y", b"True"]),
        ("goodshop/wsgi.py:site", [b"site"]),
        ("goodshop/relative.py", [b"site"]),
        ("./goodshop/wsgi.py:create_app('z')", [b"z", b"False"]),
        ("scripts/my-site.py", [b"beside"]),
        ("scripts/code.py", [b"not the stdlib"]),
    ],
)
def test_forms(spec: str, answer: object) -> None:
    assert call(load_application(spec)) == answer


def test_a_class_may_be_the_application(site: Path) -> None:
    (site / "classy.py").write_text("class Server:\n    def __init__(self, listeners, log, cell): ...\n")
    assert isinstance(load_application("classy:Server"), type)


def test_the_same_file_is_loaded_once() -> None:
    assert load_application("scripts/my-site.py") is load_application("scripts/my-site.py:application")


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("", "does not name an application"),
        ("goodshop.wsgi:", "does not name an application"),
        ("good shop", "does not name an application"),
        ("goodshop.wsgi:create_app(", "does not name an application"),
        ("goodshop.wsgi:create_app(open('x'))", "open('x') is not a literal"),
        ("goodshop.wsgi:create_app(**{})", "** is not a literal argument"),
        ("goodshop.wsgi:a + b", "a + b is neither a name nor a call of one"),
        (
            "goodshop.wsgi:aplication",
            'goodshop.wsgi has no attribute "aplication"; did you mean "application"?',
        ),
        ("goodshop.wsgi:site.methd", 'goodshop.wsgi.site has no attribute "methd"; did you mean "method"?'),
        ("godshop.wsgi", 'there is no module "godshop"; did you mean "goodshop"?'),
        ("goodshop.wsgj", 'there is no module "goodshop.wsgj"; did you mean "wsgi"?'),
        ("goodshop.wsgi.site", 'goodshop.wsgi.site is no module; did you mean "goodshop.wsgi:site"?'),
        ("nowhere_near:app", "set chdir or pythonpath"),
        ("goodshop/wsgy.py:app", 'no such file; did you mean "wsgi.py"?'),
        ("onlyfactory", 'neither "application" nor "app"; did you mean "onlyfactory:create_app()"?'),
        ("goodshop", "name it: goodshop:NAME"),
        ("goodshop.wsgi:number", "it is of type int, which cannot be called"),
        ("goodshop.wsgi:number()", "number is of type int, which cannot be called"),
        ("onlyfactory:create_app", 'If it makes the application, write "onlyfactory:create_app()".'),
        ("onlyfactory:create_app()", "it is of type NoneType, which cannot be called"),
        ("goodshop.wsgi:create_app(1, 2)", "TypeError: create_app() takes"),
        ("goodshop.wsgi:asgi", "asynchronous (ASGI) application"),
        ("goodshop.wsgi:asgi_instance", "a2wsgi"),
        ("exits", "called sys.exit('no config')"),
        ("interrupts", "raised KeyboardInterrupt"),
        ("inner", "No module named 'not_installed_anywhere'"),
        ("badpkg.gone:app", "No module named 'badpkg.gone'"),
    ],
)
def test_mistakes_are_explained(spec: str, told: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        load_application(spec)
    assert told in str(caught.value)


@pytest.mark.parametrize("spec", ["raises:app", "raises.py:app", "./raises.py"])
def test_an_import_error_shows_the_applications_own_frames(spec: str, site: Path) -> None:
    with pytest.raises(ApplicationError) as caught:
        load_application(spec)
    assert str(caught.value).splitlines() == [
        f"cannot load {spec}: importing it raised RuntimeError",
        "Traceback (most recent call last):",
        f'  File "{site}/raises.py", line 2, in <module>',
        "    boom()",
        f'  File "{site}/raiser.py", line 2, in boom',
        "    raise RuntimeError('broken pipe dream')",
        "RuntimeError: broken pipe dream",
    ]


def test_a_syntax_error_shows_the_place_without_frames(site: Path) -> None:
    with pytest.raises(ApplicationError) as caught:
        load_application("syntax:application")
    lines = str(caught.value).splitlines()
    assert lines[1] == f'  File "{site}/syntax.py", line 1'
    assert lines[-1] == "SyntaxError: expected ':'"


def test_a_factory_that_raises_shows_its_frame() -> None:
    with pytest.raises(ApplicationError, match="calling it raised LookupError") as caught:
        load_application("goodshop.wsgi:explode()")
    assert "in explode" in str(caught.value)
    assert "prefork/application.py" not in str(caught.value)


def open_fds() -> set[int]:
    return {int(name) for name in os.listdir("/proc/self/fd")}


def test_leftovers_name_threads_and_connected_stream_sockets() -> None:
    known = open_fds()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="metrics-pusher")
    thread.start()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd,
        socket.socket() as idle,
    ):
        statsd.connect(listener.getsockname())
        left = leftovers(known)
        port = listener.getsockname()[1]
        assert left.sockets == [f"fd {client.fileno()}: 127.0.0.1:{port} (TCP)"]
        assert "metrics-pusher" in left.threads
        assert left
        assert idle.fileno() in open_fds()
    stop.set()
    thread.join()
    assert not leftovers(open_fds()).sockets
    assert "metrics-pusher" not in leftovers(known).threads
