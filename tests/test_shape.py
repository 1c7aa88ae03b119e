"""The shape of the package: who imports whom, where system calls live, what no module may hold.

Each rule is a function from parsed modules to violations, ``path:line: what and why``. It is shown to find
what it is for in a small invented package, and then asked of prefork itself.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Module:
    name: str
    path: str
    source: str
    tree: ast.Module

    @classmethod
    def parse(cls, name: str, path: str, source: str) -> Module:
        return cls(name, path, source, ast.parse(source))

    @cached_property
    def import_statements(self) -> list[ast.Import | ast.ImportFrom]:
        """All, wherever they stand, except ``if TYPE_CHECKING:``."""
        found: list[ast.Import | ast.ImportFrom] = []
        pending: list[ast.AST] = [self.tree]
        while pending:
            node = pending.pop()
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                pending.extend(node.orelse)
                continue
            if isinstance(node, ast.Import | ast.ImportFrom):
                found.append(node)
            pending.extend(ast.iter_child_nodes(node))
        return found

    def at(self, node: ast.AST, message: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {message}"

    def within(self, *packages: str) -> bool:
        return any(self.name == package or self.name.startswith(package + ".") for package in packages)


Modules = dict[str, Module]


@cache
def read_package() -> Modules:
    modules = {}
    for path in sorted((ROOT / "prefork").rglob("*.py")):
        relative = path.relative_to(ROOT)
        name = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        modules[name] = Module.parse(name, str(relative), path.read_text())
    return modules


# ---- Imports


def imports(module: Module, known: Modules) -> Iterator[tuple[str, ast.AST]]:
    """Yield each imported module's full name, with the statement."""
    for node in module.import_statements:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        else:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield (submodule if submodule in known else node.module or "."), node


def reached(start: Module, known: Modules) -> dict[str, list[str]]:
    """Return every prefork module that importing ``start`` brings in, with the chain that leads there."""
    chains = {start.name: [start.name]}
    pending = [start]
    while pending:
        module = pending.pop()
        for name, _ in imports(module, known):
            if name in known and name not in chains:
                chains[name] = [*chains[module.name], name]
                pending.append(known[name])
    return chains


def master_and_worker_apart(modules: Modules) -> Iterator[str]:
    """Neither reaches the other, through whatever rooms; and outside the command line no module sees both."""
    rooms = ("prefork.master", "prefork.worker")
    for module in modules.values():
        for mine, other in (rooms, rooms[::-1]):
            if module.within(mine):
                for name, chain in reached(module, modules).items():
                    if modules[name].within(other):
                        yield f"{module.path}: {mine} must not reach {other}: {' -> '.join(chain)}"
        if not module.within("prefork.cli", "prefork.__main__", *rooms):
            seen = {
                room
                for name, _ in imports(module, modules)
                for room in rooms
                if f"{name}.".startswith(f"{room}.")
            }
            if len(seen) > 1:
                yield f"{module.path}: only prefork.cli may import both prefork.master and prefork.worker"


IMPURE = re.compile(
    "asyncio|datetime|fcntl|logging|mmap|multiprocessing|os|pathlib|random|secrets|select|selectors|shutil|signal|"
    "socket|socketserver|ssl|subprocess|tempfile|threading|time"
)


def http_is_pure(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        if module.within("prefork.http"):
            for name, node in imports(module, modules):
                top = name.partition(".")[0]
                ours = name == "prefork.errors" or f"{name}.".startswith("prefork.http.")
                if not ours and (IMPURE.fullmatch(top) or top not in sys.stdlib_module_names):
                    yield module.at(node, f"http/ imports only errors and pure standard modules, not {name}")


HOMES = {
    "yaml": "prefork/config/",
    "setproctitle": "prefork/",
    "rich": "prefork/cli/top/",
    "prometheus_client": "prefork/admin/",
}
"""Where each dependency may be imported, and there in one module only; the last one in as many as it takes."""


def dependencies_have_one_home(modules: Modules) -> Iterator[str]:
    paths: dict[str, list[str]] = {}
    for module in modules.values():
        for name, node in imports(module, modules):
            top = name.partition(".")[0]
            if top == "prefork" or top in sys.stdlib_module_names:
                continue
            if top not in HOMES:
                yield module.at(node, f"{top} is not a dependency of prefork")
            elif not module.path.startswith(HOMES[top]):
                yield module.at(node, f"{top} belongs to {HOMES[top]}")
            elif module.path not in paths.setdefault(top, []):
                paths[top].append(module.path)
    for top, found in paths.items():
        if len(found) > 1 and top != "prometheus_client":
            yield f"{found[1]}: {top} is imported in one module only, and {found[0]} does so already"


THREAD_MAKER = re.compile(
    r"(threading\.)?Thread|threading\.Timer|_thread\.start_new_thread|concurrent\.futures|asyncio\.\w+"
)


def no_threads_in_master(modules: Modules) -> Iterator[str]:
    """Nothing that the master imports can start a thread; a lock or a thread's id is no thread."""
    makers = {
        name: [
            node
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Name | ast.Attribute) and THREAD_MAKER.fullmatch(ast.unparse(node))
        ]
        for name, module in modules.items()
    }
    for module in modules.values():
        if module.within("prefork.master"):
            for name, chain in reached(module, modules).items():
                for node in makers[name]:
                    way = " -> ".join(chain)
                    yield modules[name].at(
                        node, f"the master has no threads, and reaches {ast.unparse(node)} by {way}"
                    )


# ---- System calls

PROCESS_CALL = re.compile(
    r"os\.(fork|forkpty|wait|wait3|wait4|waitid|waitpid|kill|killpg|posix_spawnp?|spawn\w+|system|popen)"
    r"|signal\.pidfd_send_signal"
)


def processes_have_one_home(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        if module.name == "prefork.process":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and PROCESS_CALL.fullmatch(ast.unparse(node)):
                yield module.at(node, f"{ast.unparse(node)} has its home in prefork/process.py")
            if isinstance(node, ast.ImportFrom) and node.module in ("os", "signal"):
                for alias in node.names:
                    if PROCESS_CALL.fullmatch(f"{node.module}.{alias.name}"):
                        yield module.at(
                            node, f"{node.module}.{alias.name} has its home in prefork/process.py"
                        )
        for name, node in imports(module, modules):
            if name in ("subprocess", "multiprocessing", "pty"):
                yield module.at(node, f"processes are started through prefork/process.py, not {name}")


# ---- State

CONTAINER = re.compile(
    "list|dict|set|bytearray|defaultdict|deque|Counter|OrderedDict|array|count|R?Lock|local"
)
DISPLAY = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTATOR = re.compile(
    "add|append(left)?|clear|discard|extend(left)?|insert|pop(item|left)?|remove|setdefault|update"
)


def no_mutable_module_state(modules: Modules) -> Iterator[str]:
    """A table that is complete when the module is loaded is a constant; what is changed later is state."""
    for module in modules.values():
        tables = set()
        for statement in module.tree.body:
            for name, value in assigned(statement):
                if is_container(value) and is_empty(value):
                    yield module.at(statement, f"module-level {name} can only be meant to be filled later")
                elif is_container(value):
                    tables.add(name)
        functions = (node for node in ast.walk(module.tree) if isinstance(node, ast.FunctionDef | ast.Lambda))
        for node in {inner for function in functions for inner in ast.walk(function)}:
            if isinstance(node, ast.Global):
                yield module.at(node, f"global {', '.join(node.names)}: no module-level state")
            elif (target := mutated(node)) in tables:
                yield module.at(node, f"changes module-level {target}")


def is_empty(value: ast.expr) -> bool:
    children = [child for child in ast.iter_child_nodes(value) if isinstance(child, ast.expr)]
    return not children or (isinstance(value, ast.Call) and children == [value.func])


def is_container(value: ast.expr) -> bool:
    called = ast.unparse(value.func).rpartition(".")[2] if isinstance(value, ast.Call) else ""
    return isinstance(value, DISPLAY) or bool(CONTAINER.fullmatch(called))


def assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        yield from ((t.id, statement.value) for t in statement.targets if isinstance(t, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and statement.value and isinstance(statement.target, ast.Name):
        yield statement.target.id, statement.value


def mutated(node: ast.AST) -> str | None:
    """Return the plain name that this node changes in place, if it is such a node."""
    changed: ast.AST | None = None
    if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
        changed = node.value
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and MUTATOR.fullmatch(node.func.attr)
    ):
        changed = node.func.value
    return changed.id if isinstance(changed, ast.Name) else None


# ---- Size and words

LONGEST_LINES, LONG_LINES, LONG_SHARE = 400, 300, 0.2


def files_fit_in_the_head(modules: Modules) -> Iterator[str]:
    lengths = {module.path: module.source.count("\n") for module in modules.values()}
    long = [path for path, lines in lengths.items() if lines > LONG_LINES]
    yield from (
        f"{p}: {n} lines; the longest may have {LONGEST_LINES}"
        for p, n in lengths.items()
        if n > LONGEST_LINES
    )
    if len(long) > LONG_SHARE * len(lengths):
        yield f"{len(long)} of {len(lengths)} files have more than {LONG_LINES} lines: {', '.join(long)}"


def modules_say_what_they_are(modules: Modules) -> Iterator[str]:
    for module in modules.values():
        if not ast.get_docstring(module.tree):
            yield f"{module.path}:1: say in a docstring what lives here"


RULES: dict[Callable[[Modules], Iterator[str]], tuple[int, dict[str, str]]] = {
    # Each rule, with an invented package that breaks it, and how often.
    master_and_worker_apart: (
        3,
        {
            "prefork.master.loop": "import prefork.shared",
            "prefork.worker.boot": "def f():\n    from prefork.master import loop",
            "prefork.shared": "from prefork.worker import boot\nfrom prefork.master import loop",
            "prefork.cli.main": "from prefork.master import loop\nfrom prefork.worker import boot",
        },
    ),
    http_is_pure: (
        3,
        {
            "prefork.http.head": "import re, socket\nfrom time import monotonic\nfrom prefork.log import Log",
            "prefork.http.body": "from prefork.errors import PreforkError\nfrom prefork.http.head import parse",
            "prefork.log": "import os",
        },
    ),
    dependencies_have_one_home: (
        4,
        {
            "prefork.config.load": "import yaml",
            "prefork.config.places": "from yaml import nodes",
            "prefork.cli.run": "import requests, prometheus_client\nimport setproctitle",
            "prefork.worker.boot": "from setproctitle import setproctitle",
        },
    ),
    no_threads_in_master: (
        2,
        {
            "prefork.master.loop": "from prefork import log\nimport threading\nthreading.Thread()",
            "prefork.log": "from threading import Lock, Thread\nLock()\nThread()",
            "prefork.worker.threads": "import threading\nthreading.Thread()",
        },
    ),
    processes_have_one_home: (
        4,
        {
            "prefork.process": "import os\nos.fork()",
            "prefork.mold": """
                import os, subprocess
                from os import kill, pipe
                fork = os.fork
                os.wait()
            """,
        },
    ),
    no_mutable_module_state: (
        6,
        {
            "prefork.log": """
                TABLE = {1: "one"}
                CACHE: dict[str, int] = {}
                SEEN = set()
                WAITING = collections.deque()
                NAMES = {name: 1 for name in TABLE}
                NAMES["prepared"] = 2
                def f():
                    global SEEN
                    TABLE[2] = "two"
                    NAMES.update(x=1)
                    local = {}
                    local[1] = TABLE[1]
            """
        },
    ),
    files_fit_in_the_head: (
        2,
        {"prefork.a": "x = 1\n" * 401, "prefork.b": "x = 1\n" * 400, "prefork.c": "x = 1\n" * 300},
    ),
    modules_say_what_they_are: (1, {"prefork.a": '"""What lives here."""', "prefork.b": "x = 1"}),
}


def invented(sources: dict[str, str]) -> Modules:
    return {
        name: Module.parse(name, name.replace(".", "/") + ".py", textwrap.dedent(source))
        for name, source in sources.items()
    }


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_rule_finds_what_it_is_for(rule: Callable[[Modules], Iterator[str]]) -> None:
    expected, sources = RULES[rule]
    found = sorted(rule(invented(sources)))
    assert len(found) == expected, "\n".join(found)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_prefork_keeps(rule: Callable[[Modules], Iterator[str]]) -> None:
    violations = sorted(rule(read_package()))
    assert not violations, "\n" + "\n".join(violations)
