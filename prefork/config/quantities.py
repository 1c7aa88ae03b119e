"""Kinds of values that have a unit: durations, sizes, shares and file modes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from prefork.config import units
from prefork.config.kinds import JsonSchema, Refused, ScalarKind
from prefork.config.nodes import Scalar


@dataclass(frozen=True)
class Duration(ScalarKind[float]):
    """A span of time in seconds. ``or_zero``: 0 is allowed below the range, and switches the feature off."""

    at_least: float = 0
    at_most: float = 86400
    or_zero: bool = False

    @property
    def expects(self) -> str:
        """The forms and the range."""
        low, high = units.format_duration(self.at_least), units.format_duration(self.at_most)
        zero = "0 or " if self.or_zero else ""
        return f"{zero}a duration such as 250ms, 30s or 5m, from {low} to {high}"

    def convert(self, scalar: Scalar) -> float:
        """Return seconds."""
        if scalar.value is None or isinstance(scalar.value, bool):
            raise Refused
        seconds = units.parse_duration(scalar.value)
        if seconds == 0 and self.or_zero:
            return 0.0
        if seconds is None or not self.at_least <= seconds <= self.at_most:
            raise Refused
        return seconds

    def show(self, value: float) -> str | int:
        """Return the duration with its unit."""
        return units.format_duration(value) if value else 0

    def json_schema(self) -> JsonSchema:
        """Return both forms."""
        low = 0 if self.or_zero else self.at_least
        number = {"type": "number", "minimum": low, "maximum": self.at_most}
        return {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"}, number]}


@dataclass(frozen=True)
class Size(ScalarKind[int]):
    """A number of bytes, in powers of 1024. ``or_zero``: 0 is allowed below the range, and switches the feature off."""

    at_least: int
    at_most: int
    or_zero: bool = False

    @property
    def expects(self) -> str:
        """The forms and the range."""
        low, high = units.format_size(self.at_least), units.format_size(self.at_most)
        return f"{'0 or ' if self.or_zero else ''}a size such as 64KiB or 1MiB, from {low} to {high}"

    def convert(self, scalar: Scalar) -> int:
        """Return bytes; 64KB and 64k, which mean either 1000 or 1024 to people, are refused."""
        if scalar.value is None or isinstance(scalar.value, bool):
            raise Refused
        size = units.parse_size(scalar.value)
        if size is None:
            near = re.fullmatch(r"([0-9.]{1,15}) ?([kmgt])i?b?", scalar.text, re.IGNORECASE)
            raise Refused(f'did you mean "{near[1]}{near[2].upper()}iB"?' if near else "")
        if not self.at_least <= size <= self.at_most and not (size == 0 and self.or_zero):
            raise Refused
        return size

    def show(self, value: int) -> str | int:
        """Return the size with its unit."""
        return units.format_size(value) if value or not self.or_zero else 0

    def json_schema(self) -> JsonSchema:
        """Return both forms."""
        low = 0 if self.or_zero else self.at_least
        number = {"type": "integer", "minimum": low, "maximum": self.at_most}
        return {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB)$"}, number]}


@dataclass(frozen=True)
class Mode(ScalarKind[int]):
    """A file mode: quoted octal digits, because YAML would read an unquoted 0660 as the number 660."""

    expects: str = 'an octal mode in quotes such as "0660"'

    def convert(self, scalar: Scalar) -> int:
        """Return the mode."""
        if not scalar.is_text:
            digits = scalar.text.removeprefix("0o")
            raise Refused(f'quote it: "{digits}"' if units.parse_mode(digits) is not None else "")
        mode = units.parse_mode(scalar.text)
        if mode is None:
            raise Refused
        return mode

    def show(self, value: int) -> str:
        """Return four octal digits."""
        return f"{value:04o}"

    def json_schema(self) -> JsonSchema:
        """Return the form."""
        return {"type": "string", "pattern": "^0?[0-7]{3}$"}


@dataclass(frozen=True)
class Batch(ScalarKind[float | int]):
    """How many at a time: an integer, or a percentage that becomes a fraction of at most 1 (a float)."""

    expects: str = "a percentage such as 25%, or a number of workers from 1"

    def convert(self, scalar: Scalar) -> float | int:
        """Return an integer or a fraction."""
        value = scalar.value
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1024:
            return value
        share = units.parse_share(scalar.text)
        if share is None or not 0 < share <= 1:
            raise Refused
        return share

    def show(self, value: float | int) -> str | int:
        """Return the number or the percentage."""
        return value if isinstance(value, int) else f"{value * 100:g}%"

    def json_schema(self) -> JsonSchema:
        """Return both forms."""
        number = {"type": "integer", "minimum": 1, "maximum": 1024}
        return {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"}, number]}


@dataclass(frozen=True)
class Share(ScalarKind[float]):
    """A percentage, as a fraction from 0 to 1."""

    expects: str = "a percentage from 0% to 100%"

    def convert(self, scalar: Scalar) -> float:
        """Return the fraction; 0 needs no sign."""
        share = 0.0 if scalar.value == 0 and not scalar.is_text else units.parse_share(scalar.text)
        if share is None or share > 1 or scalar.value is False:
            raise Refused
        return share

    def show(self, value: float) -> str:
        """Return the percentage."""
        return f"{value * 100:g}%"

    def json_schema(self) -> JsonSchema:
        """Return both forms."""
        return {"anyOf": [{"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"}, {"const": 0}]}
