"""What a key's value may be: a kind reads a node, shows a value again, and describes itself as JSON Schema.

A kind is a value; the schema is made of them. Scalars are here, what is made of several in ``composites``.
"""

from __future__ import annotations

import ast
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from prefork.config import address, units
from prefork.config.nodes import Node, Report, Scalar, describe, is_null, nearest

T = TypeVar("T")
JsonSchema = dict[str, Any]


class Kind(ABC, Generic[T]):
    """How the value of a key is read, shown and described."""

    @property
    @abstractmethod
    def expects(self) -> str:
        """What an error says was expected: ``a duration such as 30s``."""

    @abstractmethod
    def read(self, node: Node, path: str, report: Report) -> T | None:
        """Return the typed value; after a mistake, which goes to the report, a value that nobody may use."""

    @abstractmethod
    def json_schema(self) -> JsonSchema:
        """Return the JSON Schema of what ``read`` accepts."""

    def show(self, value: T) -> Any:
        """Return the value as plain data in the config's notation."""
        return value


class ScalarKind(Kind[T]):
    """A kind that one scalar gives."""

    @abstractmethod
    def convert(self, scalar: Scalar) -> T:
        """Return the typed value. Raises ValueError; its message replaces ``expected …``."""

    def read(self, node: Node, path: str, report: Report) -> T | None:
        """Convert a scalar; anything else, and null, is a mistake."""
        report.origins[path] = node.place
        if isinstance(node, Scalar) and node.secret:
            report.secrets.add(path)
        try:
            if not isinstance(node, Scalar) or is_null(node):
                raise ValueError
            return self.convert(node)
        except ValueError as error:
            message = str(error) or f"expected {self.expects}"
            expected, hint = message.split("; ", 1) if "; " in message else (message, "")
            report.mistake(
                node.place, path, f"{expected}, got {describe(node)}" + (f"; {hint}" if hint else "")
            )
            return None


def text_of(scalar: Scalar) -> str:
    """Return the text of a scalar that may be text. Raises ValueError for numbers and booleans."""
    if scalar.loose or isinstance(scalar.value, str):
        return scalar.text
    raise ValueError


@dataclass(frozen=True)
class Text(ScalarKind[str]):
    """Text, perhaps of a certain form."""

    expects: str = "text"
    pattern: str = r"[^\0]*"
    any_scalar: bool = False
    """Take numbers and booleans too, as they were written."""

    def convert(self, scalar: Scalar) -> str:
        text = scalar.text if self.any_scalar else self._quoted(scalar)
        if not re.fullmatch(self.pattern, text, re.DOTALL):
            raise ValueError
        return text

    def _quoted(self, scalar: Scalar) -> str:
        try:
            return text_of(scalar)
        except ValueError:
            raise ValueError(f'expected {self.expects}; quote it: "{scalar.text}"') from None

    def json_schema(self) -> JsonSchema:
        schema: JsonSchema = {"type": ["string", "number", "boolean"] if self.any_scalar else "string"}
        if self.pattern != Text.pattern:
            schema["pattern"] = f"^(?:{self.pattern})$"
        return schema


@dataclass(frozen=True)
class Boolean(ScalarKind[bool]):
    """``true`` or ``false``."""

    expects: str = "true or false"

    def convert(self, scalar: Scalar) -> bool:
        if isinstance(scalar.value, bool):
            return scalar.value
        raise ValueError

    def json_schema(self) -> JsonSchema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Integer(ScalarKind[int]):
    """A whole number within a range."""

    at_least: int
    at_most: int

    @property
    def expects(self) -> str:
        return f"an integer from {self.at_least} to {self.at_most}"

    def convert(self, scalar: Scalar) -> int:
        value = scalar.value
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not self.at_least <= value <= self.at_most
        ):
            raise ValueError
        return value

    def json_schema(self) -> JsonSchema:
        return {"type": "integer", "minimum": self.at_least, "maximum": self.at_most}


@dataclass(frozen=True)
class Choice(ScalarKind[str]):
    """One of some words, or where ``otherwise`` is given other text that it accepts."""

    words: tuple[str, ...]
    otherwise: Text | None = None
    later: Mapping[str, str] = field(default_factory=dict)
    """Patterns of words that a later version will know, and how to name them."""

    @property
    def expects(self) -> str:
        words = [*self.words, self.otherwise.expects] if self.otherwise else list(self.words)
        return f"{', '.join(words[:-1])} or {words[-1]}"

    def convert(self, scalar: Scalar) -> str:
        try:
            text = text_of(scalar)
        except ValueError:
            raise ValueError from None
        if text in self.words:
            return text
        for pattern, name in self.later.items():
            if re.fullmatch(pattern, text):
                raise ValueError(
                    f"expected {self.expects}; {name} is not available in this version of prefork"
                )
        if self.otherwise and re.fullmatch(self.otherwise.pattern, text):
            return text
        raise ValueError(f"expected {self.expects}{nearest(text, self.words)}")

    def json_schema(self) -> JsonSchema:
        words: JsonSchema = {"enum": list(self.words)}
        return {"anyOf": [words, self.otherwise.json_schema()]} if self.otherwise else words


@dataclass(frozen=True)
class OrWord(ScalarKind[T]):
    """Another kind, or one word with a meaning of its own (``auto``, ``off``)."""

    word: str
    meaning: Any
    kind: ScalarKind[T]

    @property
    def expects(self) -> str:
        return f"{self.kind.expects}, or {self.word}"

    def convert(self, scalar: Scalar) -> T:
        if scalar.text == self.word:
            return self.meaning  # type: ignore[no-any-return]
        try:
            return self.kind.convert(scalar)
        except ValueError as error:
            if str(error):
                raise
            raise ValueError(f"expected {self.expects}") from None

    def show(self, value: T) -> Any:
        return self.word if value == self.meaning else self.kind.show(value)

    def json_schema(self) -> JsonSchema:
        return {"anyOf": [{"const": self.word}, self.kind.json_schema()]}


@dataclass(frozen=True)
class Duration(ScalarKind[float]):
    """A span of time in seconds. ``or_zero``: 0 is allowed below the range, and switches the feature off."""

    at_least: float = 0
    at_most: float = 86400
    or_zero: bool = False

    @property
    def expects(self) -> str:
        low, high = units.format_duration(self.at_least), units.format_duration(self.at_most)
        zero = "0 or " if self.or_zero else ""
        return f"{zero}a duration such as 250ms, 30s or 5m, from {low} to {high}"

    def convert(self, scalar: Scalar) -> float:
        if scalar.value is None or isinstance(scalar.value, bool):
            raise ValueError
        seconds = units.parse_duration(scalar.value)
        if seconds == 0 and self.or_zero:
            return 0.0
        if seconds is None or not self.at_least <= seconds <= self.at_most:
            raise ValueError
        return seconds

    def show(self, value: float) -> Any:
        return units.format_duration(value) if value else 0

    def json_schema(self) -> JsonSchema:
        return {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"},
                {"type": "number", "minimum": 0 if self.or_zero else self.at_least, "maximum": self.at_most},
            ]
        }


@dataclass(frozen=True)
class Size(ScalarKind[int]):
    """A number of bytes."""

    at_least: int
    at_most: int

    @property
    def expects(self) -> str:
        low, high = units.format_size(self.at_least), units.format_size(self.at_most)
        return f"a size such as 64KiB or 1MiB, from {low} to {high}"

    def convert(self, scalar: Scalar) -> int:
        if scalar.value is None or isinstance(scalar.value, bool):
            raise ValueError
        size = units.parse_size(scalar.value)
        if size is None:
            decimal = re.fullmatch(r"([0-9.]+) ?([kmgt])i?b?", scalar.text, re.IGNORECASE)
            hint = f"; did you mean {decimal[1]}{decimal[2].upper()}iB?" if decimal else ""
            raise ValueError(f"expected {self.expects}{hint}")
        if not self.at_least <= size <= self.at_most:
            raise ValueError
        return size

    def show(self, value: int) -> Any:
        return units.format_size(value)

    def json_schema(self) -> JsonSchema:
        return {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB)$"},
                {"type": "integer", "minimum": self.at_least, "maximum": self.at_most},
            ]
        }


@dataclass(frozen=True)
class Mode(ScalarKind[int]):
    """A file mode: quoted octal digits, because YAML would read an unquoted 0660 as the number 660."""

    expects: str = 'an octal mode in quotes such as "0660"'

    def convert(self, scalar: Scalar) -> int:
        if not scalar.loose and isinstance(scalar.value, int):
            raise ValueError(f'expected {self.expects}; quote it: "{scalar.text.removeprefix("0o")}"')
        mode = units.parse_mode(scalar.text)
        if mode is None:
            raise ValueError
        return mode

    def show(self, value: int) -> Any:
        return f"{value:04o}"

    def json_schema(self) -> JsonSchema:
        return {"type": "string", "pattern": "^0?[0-7]{3}$"}


@dataclass(frozen=True)
class Batch(ScalarKind[float]):
    """How many at a time: a whole number, or a share as a percentage (kept as a fraction of at most 1)."""

    expects: str = "a percentage such as 25%, or a number of workers from 1"

    def convert(self, scalar: Scalar) -> float:
        value = scalar.value
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024:
            return value
        share = units.parse_share(scalar.text)
        if share is None or not 0 < share <= 1:
            raise ValueError
        return share

    def show(self, value: float) -> Any:
        return value if isinstance(value, int) else f"{value * 100:g}%"

    def json_schema(self) -> JsonSchema:
        share = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"}
        return {"anyOf": [share, {"type": "integer", "minimum": 1, "maximum": 1024}]}


@dataclass(frozen=True)
class ListenAddress(ScalarKind[str]):
    """An address to listen on, kept in its normal form."""

    expects: str = address.FORMS

    def convert(self, scalar: Scalar) -> str:
        return str(address.parse(scalar.text))

    def json_schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 0, "maximum": 65535}]}


@dataclass(frozen=True)
class Application(ScalarKind[str]):
    """The application's address; only its form is looked at, because the master never imports it."""

    expects: str = 'module:attribute, module, "module:create(args)" or path/wsgi.py:attribute'
    _name: ClassVar[str] = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"

    def convert(self, scalar: Scalar) -> str:
        text = text_of(scalar)
        module, colon, attribute = text.partition(":")
        is_module = re.fullmatch(self._name, module) and not module.endswith(".py")
        if not is_module and not re.fullmatch(r"[^\0\n]*[^/]\.py", module):
            raise ValueError
        if colon and not re.fullmatch(self._name, attribute) and not _is_call(attribute):
            raise ValueError
        return text

    def json_schema(self) -> JsonSchema:
        return {"type": "string", "minLength": 1}


def _is_call(text: str) -> bool:
    """Tell whether the text is a call with literal arguments, such as ``create("prod", debug=False)``."""
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name | ast.Attribute):
        return False
    try:
        for argument in [*call.args, *(k.value for k in call.keywords)]:
            ast.literal_eval(argument)
    except ValueError:
        return False
    return all(k.arg for k in call.keywords)
