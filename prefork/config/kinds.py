"""What a key's value may be: a kind reads a node, shows a value again, and describes itself as JSON Schema.

A kind is a value; the schema is made of them. Words and numbers are here, what has a unit in ``quantities``,
what names something in ``names``, lists and mappings in ``composites``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from prefork.config.nodes import Node, Report, Scalar, is_null
from prefork.suggest import did_you_mean

T = TypeVar("T")
JsonSchema = dict[str, Any]

LATER: Final = "not available in this version of prefork"


class Kind(ABC, Generic[T]):
    """How the value of a key is read, shown and described."""

    @property
    @abstractmethod
    def expects(self) -> str:
        """What an error says was expected: ``a duration such as 30s``."""

    @abstractmethod
    def read(self, node: Node, path: str, report: Report) -> T | None:
        """Return the typed value; after a mistake, which goes to the report, None."""

    @abstractmethod
    def json_schema(self) -> JsonSchema:
        """Return the JSON Schema of what ``read`` accepts."""

    def show(self, value: T) -> Any:
        """Return the value as plain data in the config's notation."""
        return value


class Refused(Exception):
    """A scalar is not of a kind: a hint, and what was expected if not simply what the kind expects."""

    def __init__(self, hint: str = "", expected: str = "") -> None:
        super().__init__(hint, expected)
        self.hint = f"; {hint}" if hint else ""
        self.expected = expected


class ScalarKind(Kind[T]):
    """A kind that one scalar gives."""

    @abstractmethod
    def convert(self, scalar: Scalar) -> T:
        """Return the typed value of a scalar that is not null. Raises Refused."""

    def read(self, node: Node, path: str, report: Report) -> T | None:
        """Convert a scalar; anything else, and null, is a mistake."""
        report.origins[path] = node.place
        if isinstance(node, Scalar) and node.secret:
            report.secrets.add(path)
        try:
            if not isinstance(node, Scalar) or is_null(node) or node.reported:
                raise Refused
            return self.convert(node)
        except Refused as refused:
            report.wrong(node, path, refused.expected or self.expects, refused.hint)
            return None


@dataclass(frozen=True)
class Text(ScalarKind[str]):
    """Text, perhaps of a certain form."""

    expects: str = "text"
    pattern: str = r"[^\0]*"
    any_scalar: bool = False
    """Take numbers and booleans too, as they were written."""

    def convert(self, scalar: Scalar) -> str:
        """Return the text."""
        fits = re.fullmatch(self.pattern, scalar.text, re.DOTALL)
        if fits and (self.any_scalar or scalar.is_text):
            return scalar.text
        unquoted_number = fits and not isinstance(scalar.value, bool)
        raise Refused(f'quote it: "{scalar.text}"' if unquoted_number else "")

    def json_schema(self) -> JsonSchema:
        """Return a string with the pattern."""
        schema: JsonSchema = {"type": ["string", "number", "boolean"] if self.any_scalar else "string"}
        return schema if self.pattern == Text.pattern else {**schema, "pattern": f"^(?:{self.pattern})$"}


@dataclass(frozen=True)
class Boolean(ScalarKind[bool]):
    """``true`` or ``false``, and no other words."""

    expects: str = "true or false"

    def convert(self, scalar: Scalar) -> bool:
        """Return the boolean."""
        if isinstance(scalar.value, bool):
            return scalar.value
        raise Refused

    def json_schema(self) -> JsonSchema:
        """Return the type."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Integer(ScalarKind[int]):
    """A whole number within a range."""

    at_least: int
    at_most: int

    @property
    def expects(self) -> str:
        """The range."""
        return f"an integer from {self.at_least} to {self.at_most}"

    def convert(self, scalar: Scalar) -> int:
        """Return the number."""
        value = scalar.value
        if (
            isinstance(value, bool)
            or not isinstance(value, int)
            or not self.at_least <= value <= self.at_most
        ):
            raise Refused
        return value

    def json_schema(self) -> JsonSchema:
        """Return the range."""
        return {"type": "integer", "minimum": self.at_least, "maximum": self.at_most}


@dataclass(frozen=True)
class Choice(ScalarKind[str]):
    """One of some words, or where ``otherwise`` is given other text that it accepts."""

    words: tuple[str, ...]
    otherwise: Text | None = None

    @property
    def expects(self) -> str:
        """The words."""
        words = [*self.words, self.otherwise.expects] if self.otherwise else list(self.words)
        return f"{', '.join(words[:-1])} or {words[-1]}"

    def convert(self, scalar: Scalar) -> str:
        """Return the word."""
        text = scalar.text
        if not scalar.is_text:
            raise Refused(f'quote it: "{text}"' if text in self.words else "")
        if text in self.words:
            return text
        if self.otherwise and re.fullmatch(self.otherwise.pattern, text):
            return text
        raise Refused(did_you_mean(text, self.words).removeprefix("; "))

    def json_schema(self) -> JsonSchema:
        """Return the words, and the form of other text."""
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
        """The word, and what the kind expects."""
        return f"{self.word}{',' if isinstance(self.kind, Boolean) else ' or'} {self.kind.expects}"

    def convert(self, scalar: Scalar) -> T:
        """Return the word's meaning, or what the kind makes of the scalar."""
        if scalar.text == self.word:
            return self.meaning  # type: ignore[no-any-return]
        try:
            return self.kind.convert(scalar)
        except Refused as refused:
            raise Refused(refused.hint.removeprefix("; "), refused.expected or self.expects) from None

    def show(self, value: T) -> Any:
        """Return the word where it stands for itself or for nothing, not where it stands for a value."""
        is_word = value == self.meaning and self.meaning in (self.word, None)
        return self.word if is_word else self.kind.show(value)

    def json_schema(self) -> JsonSchema:
        """Return both."""
        return {"anyOf": [{"const": self.word}, self.kind.json_schema()]}
