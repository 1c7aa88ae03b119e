"""Load the application that the config names, and say plainly why that failed.

Runs wherever application code may run: in the mold, in a worker that loads for itself, and in the child of
``prefork check``; never in the master.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import pkgutil
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from prefork.errors import ApplicationError
from prefork.suggest import did_you_mean
from prefork.tracebacks import application_traceback, in_application

DEFAULT_ATTRIBUTES = ("application", "app")
FACTORY_NAMES = ("create_app", "make_app", "create_application", "get_wsgi_application", "main")
FORMS = 'module:attr, module, "module:create(args)" or path/wsgi.py:attr'

_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


def load_application(spec: str) -> Callable[..., object]:
    """Import and return the application that ``spec`` names.

    The forms are ``module:attr`` (dotted attributes too), ``module`` (its ``application``, else its ``app``),
    ``module:create(args)`` (literal arguments only; the result is the application), and the same with a path
    to a file in the place of the module.
    Raise ApplicationError, with the application's own traceback where its code failed.
    """
    target = Target.parse(spec)
    module = target.import_module()
    found = target.resolve(module)
    if target.arguments is not None:
        found = target.call(found)
    return _checked(spec, found)


def load_callable(spec: str) -> Callable[..., object]:
    """Import and return the callable that ``module:attr`` names. Raise ApplicationError."""
    target = Target.parse(spec)
    if not target.attributes or target.arguments is not None:
        raise ApplicationError(f'"{spec}" does not name a callable: expected module:callable')
    found = target.resolve(target.import_module())
    if not callable(found):
        raise ApplicationError(f"{spec} is of type {type(found).__name__}, which cannot be called")
    return found


@dataclass(frozen=True, slots=True)
class Arguments:
    """The literal arguments of a factory call."""

    positional: tuple[Any, ...]
    named: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A parsed application spec."""

    spec: str
    module: str
    is_path: bool
    attributes: tuple[str, ...]
    arguments: Arguments | None

    @classmethod
    def parse(cls, spec: str) -> Target:
        """Parse without importing anything. Raise ApplicationError on a spec of none of the forms."""
        place, colon, expression = spec.partition(":")
        is_path = "/" in place or place.endswith(".py")
        if not (is_path or _MODULE.fullmatch(place)) or (colon and not expression):
            raise ApplicationError(f'"{spec}" does not name an application: expected {FORMS}')
        if not colon:
            return cls(spec, place, is_path, (), None)
        try:
            node = ast.parse(expression, mode="eval").body
            arguments = None
            if isinstance(node, ast.Call):
                arguments = _literal_arguments(node)
                node = node.func
            return cls(spec, place, is_path, tuple(_dotted(node)), arguments)
        except (SyntaxError, ValueError) as error:
            reason = error.msg if isinstance(error, SyntaxError) else error
            raise ApplicationError(
                f'"{spec}" does not name an application ({reason}): expected {FORMS}'
            ) from None

    def import_module(self) -> ModuleType:
        """Import the module or file, whatever it raises becoming an ApplicationError."""
        # The finders' caches were inherited from a process that may be weeks old.
        importlib.invalidate_caches()
        try:
            return _import_file(Path(self.module)) if self.is_path else importlib.import_module(self.module)
        except ApplicationError:
            raise
        except BaseException as error:
            if isinstance(error, ModuleNotFoundError) and not in_application(error):
                raise ApplicationError(self._not_found(error.name or self.module)) from None
            raise self._failed("importing it", error) from None

    def resolve(self, module: ModuleType) -> object:
        """Follow the attributes from the module; without any, take the default ones."""
        if not self.attributes:
            return self._default(module)
        found: object = module
        for index, name in enumerate(self.attributes):
            try:
                found = getattr(found, name)
            except AttributeError:
                owner = ".".join((self.module, *self.attributes[:index]))
                usual = [known for known in DEFAULT_ATTRIBUTES if callable(getattr(found, known, None))]
                near = did_you_mean(name, dir(found)) or (f'; did you mean "{usual[0]}"?' if usual else "")
                raise ApplicationError(
                    f'cannot load {self.spec}: {owner} has no attribute "{name}"{near}\n{_origin(module)}'
                ) from None
            except BaseException as error:
                raise self._failed(f"reading {name}", error) from None
        return found

    def call(self, factory: object) -> object:
        """Call the factory with the literal arguments."""
        assert self.arguments is not None
        if not callable(factory):
            raise ApplicationError(
                f"cannot load {self.spec}: {'.'.join(self.attributes)} is of type {type(factory).__name__}, "
                "which cannot be called"
            )
        try:
            return factory(*self.arguments.positional, **self.arguments.named)
        except BaseException as error:
            raise self._failed("calling it", error) from None

    def _default(self, module: ModuleType) -> object:
        for name in DEFAULT_ATTRIBUTES:
            if hasattr(module, name):
                return getattr(module, name)
        factory = next((name for name in FACTORY_NAMES if callable(getattr(module, name, None))), None)
        hint = f'; did you mean "{self.module}:{factory}()"?' if factory else f"; name it: {self.module}:NAME"
        raise ApplicationError(
            f'cannot load {self.spec}: it has neither "application" nor "app"{hint}\n{_origin(module)}'
        )

    def _not_found(self, missing: str) -> str:
        parent_name, _, last = missing.rpartition(".")
        parent = sys.modules.get(parent_name)
        if parent is not None and hasattr(parent, last):
            attribute = ".".join([last, *self.module.removeprefix(missing).split(".")[1:]])
            return (
                f'cannot load {self.spec}: {missing} is no module; did you mean "{parent_name}:{attribute}"?'
            )
        folders = getattr(parent, "__path__", None) if parent_name else sys.path
        near = did_you_mean(last, (module.name for module in pkgutil.iter_modules(folders or [])))
        return (
            f'cannot load {self.spec}: there is no module "{missing}"{near}\n'
            f"Looked for in {os.getcwd()} and on sys.path; when it lives elsewhere, set chdir or pythonpath."
            + _closed_folders()
        )

    def _failed(self, doing: str, error: BaseException) -> ApplicationError:
        what = (
            f"called sys.exit({error.code!r})"
            if isinstance(error, SystemExit)
            else f"raised {type(error).__name__}"
        )
        return ApplicationError(f"cannot load {self.spec}: {doing} {what}\n{application_traceback(error)}")


def _closed_folders() -> str:
    """Name the folders of ``sys.path`` that this user may not look into: the import passes them by in silence."""
    closed = []
    for folder in dict.fromkeys(path or os.getcwd() for path in sys.path):
        try:
            os.listdir(folder)
        except PermissionError:
            closed.append(folder)
        except OSError:
            continue
    return f"\nUid {os.geteuid()} may not read {', '.join(closed)}." if closed else ""


def _origin(module: ModuleType) -> str:
    """Tell which file was loaded: a name may be taken by another module than the one that was meant."""
    return f"The module was loaded from {getattr(module, '__file__', None) or 'no file'}."


def _import_file(path: Path) -> ModuleType:
    """Import a file, with its folder on ``sys.path``.

    A file of a package is imported under its dotted name, with the folder of the top package on ``sys.path``.
    """
    if not path.is_file():
        siblings = os.listdir(path.parent) if path.parent.is_dir() else ()
        raise ApplicationError(
            f"cannot load {path}: no such file{did_you_mean(path.name, siblings)}\n"
            f"Looked for from {os.getcwd()}; set chdir, or give an absolute path."
        )
    path = path.resolve()
    root = path.parent
    packages: list[str] = []
    while (root / "__init__.py").is_file() and root.name.isidentifier():
        packages.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    if packages:
        return importlib.import_module(".".join([*packages, path.stem]))
    # Not import_module: a file may be called "code.py" or "my-site.py", and must not become another module.
    name = re.sub(r"\W", "_", path.stem)
    if name in sys.modules:
        if getattr(sys.modules[name], "__file__", None) == str(path):
            return sys.modules[name]
        name = f"{name}_application"
    loader = importlib.machinery.SourceFileLoader(name, str(path))
    found = importlib.util.spec_from_loader(name, loader)
    assert found is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def _literal_arguments(call: ast.Call) -> Arguments:
    named: dict[str, Any] = {}
    for keyword in call.keywords:
        if keyword.arg is None:
            raise ValueError("** is not a literal argument")
        named[keyword.arg] = _literal(keyword.value)
    return Arguments(tuple(_literal(node) for node in call.args), named)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise ValueError(f"{ast.unparse(node)} is not a literal") from None


def _dotted(node: ast.expr) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        return [*_dotted(node.value), node.attr]
    raise ValueError(f"{ast.unparse(node)} is neither a name nor a call of one")


def _checked(spec: str, found: object) -> Callable[..., object]:
    """Refuse what cannot be a WSGI application, rather than fail on every request."""
    if not callable(found):
        raise ApplicationError(
            f"cannot load {spec}: it is of type {type(found).__name__}, which cannot be called"
        )
    if _is_async(found):
        raise ApplicationError(
            f"cannot load {spec}: it is an asynchronous (ASGI) application, and prefork is a WSGI server\n"
            "Wrap it with the package a2wsgi, app = a2wsgi.ASGIMiddleware(app), or use an ASGI server."
        )
    if inspect.isfunction(found):
        try:
            inspect.signature(found, follow_wrapped=False).bind({}, None)
        except TypeError as error:
            raise ApplicationError(
                f"cannot load {spec}: it cannot be called with (environ, start_response): {error}\n"
                f'If it makes the application, write "{spec}()".'
            ) from None
    return found


def _is_async(found: object) -> bool:
    if isinstance(found, type):
        # Calling a class gives an instance, and an ASGI server would await that.
        return hasattr(found, "__await__")
    return inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(type(found).__call__)
