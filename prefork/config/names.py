"""Kinds of values with a syntax of their own: addresses to listen on, the application, access formats."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Final

from prefork.config import address
from prefork.config.kinds import JsonSchema, Refused, ScalarKind
from prefork.config.nodes import Scalar
from prefork.log.access_format import compile_access_format
from prefork.suggest import nearest

_MODULE: Final = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FILE: Final = r"[^\0\n:]*[^/\0\n:]\.py"


@dataclass(frozen=True)
class ListenAddress(ScalarKind[str]):
    """An address to listen on, kept in its normal form."""

    expects: str = address.FORMS

    def convert(self, scalar: Scalar) -> str:
        """Return the normal form."""
        try:
            return str(address.parse(scalar.text))
        except ValueError as error:
            raise Refused(expected=str(error)) from None

    def json_schema(self) -> JsonSchema:
        """Return text, or a port."""
        return {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0, "maximum": 65535}]}


@dataclass(frozen=True)
class TrustedPeer(ScalarKind[str]):
    """A network, an address, or ``unix`` for whoever may connect to a unix socket."""

    expects: str = "an address, a network such as 10.0.0.0/8, or unix"

    def convert(self, scalar: Scalar) -> str:
        """Return the network in its usual form."""
        text = scalar.text
        if text == "unix":
            return text
        try:
            network = ip_network(text, strict=False) if scalar.is_text else None
        except ValueError:
            network = None
        if network is None:
            raise Refused
        address, slash, _ = text.partition("/")
        if slash and ip_network(address) != ip_network(network.network_address):
            raise Refused(f'did you mean "{network}"?')
        return str(network) if slash else str(network.network_address)

    def json_schema(self) -> JsonSchema:
        """Return text."""
        return {"type": "string"}


@dataclass(frozen=True)
class Application(ScalarKind[str]):
    """The application's place; only its form is looked at, because the master never imports it."""

    expects: str = 'module:attribute, module, "module:create(args)" or path/wsgi.py:attribute'

    def convert(self, scalar: Scalar) -> str:
        """Return the text."""
        module, colon, attribute = scalar.text.partition(":")
        if not scalar.is_text or not re.fullmatch(f"{_MODULE}|{_FILE}", module):
            raise Refused
        if colon and not re.fullmatch(_MODULE, attribute) and not _is_call(attribute):
            raise Refused
        return scalar.text

    def json_schema(self) -> JsonSchema:
        """Return text."""
        return {"type": "string", "minLength": 1}


@dataclass(frozen=True)
class AccessFormat(ScalarKind[str]):
    """The form of the access log: a word, or a text with atoms, of which each must be known."""

    words: tuple[str, ...]

    @property
    def expects(self) -> str:
        """The words, and an example."""
        return f'{", ".join(self.words)} or a format with atoms such as "%(h)s"'

    def convert(self, scalar: Scalar) -> str:
        """Return the text."""
        text = scalar.text
        if scalar.is_text and text in self.words:
            return text
        if not scalar.is_text or "%" not in text:
            word = nearest(text, self.words)
            raise Refused(f'did you mean "{word}"?' if word else "")
        try:
            compile_access_format(text)
        except ValueError as error:
            raise Refused(str(error)) from None
        return text

    def json_schema(self) -> JsonSchema:
        """Return the words, and text with a percent sign."""
        return {"anyOf": [{"enum": list(self.words)}, {"type": "string", "pattern": "%"}]}


def _is_call(text: str) -> bool:
    """Tell whether the text is a call with literal arguments, such as ``create("prod", debug=False)``."""
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name | ast.Attribute):
            return False
        for argument in [*call.args, *(k.value for k in call.keywords)]:
            ast.literal_eval(argument)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return all(k.arg for k in call.keywords)
