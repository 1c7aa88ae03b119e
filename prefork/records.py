"""Records: dataclasses as plain JSON values and back, so that they survive an exec into another version of prefork.

The types of the fields say how. What a record lacks has the default of its class, for an older version may have
written it; what the class does not know is left out. A field with the metadata ``TRANSIENT`` is not kept.
Pure. Used by the master.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Final, Literal, NewType, TypeVar, Union, get_args, get_origin, get_type_hints

from prefork.errors import PreforkError

Descriptor = NewType("Descriptor", int)
"""An open file of the process: to be left open across the exec."""

TRANSIENT: Final = MappingProxyType({"transient": True})

T = TypeVar("T")


class RecordError(PreforkError):
    """A value does not fit the type that it is meant for."""


def plain(value: Any) -> Any:
    """Return a value of only dicts, lists, strings, numbers, booleans and None. Raises ``RecordError``."""
    if value is None or isinstance(value, bool | int | float | str):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return plain(value.value)
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in _kept(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(plain(each) for each in value)
    raise RecordError(f"cannot make a record of {value!r}: its type {type(value).__name__} has no plain form")


def build(type_: type[T], value: Any, place: str = "") -> T:
    """Return what ``plain`` was given, by its type. Raises ``RecordError``, which names the place."""
    return _build(type_, value, place or type_.__name__)  # type: ignore[no-any-return]


def restore(instance: Any, value: Any) -> None:
    """Set the fields of a dataclass to those that ``plain`` found. Raises ``RecordError``."""
    place = type(instance).__name__
    for name, each in _values(type(instance), value, place).items():
        setattr(instance, name, each)


def descriptors(value: Any) -> Iterator[int]:
    """Yield each ``Descriptor`` in a dataclass, by the types of its fields."""
    yield from _descriptors(type(value), value)


def _kept(owner: Any) -> Iterator[Field[Any]]:
    return (field for field in fields(owner) if not field.metadata.get("transient"))


def _values(owner: type, value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _misfit(owner, value, place)
    hints = get_type_hints(owner)
    return {
        field.name: _build(hints[field.name], value[field.name], f"{place}.{field.name}")
        for field in _kept(owner)
        if field.name in value
    }


def _build(hint: Any, value: Any, place: str) -> Any:
    """Return the value as ``hint`` wants it."""
    hint = getattr(hint, "__supertype__", hint)  # of a NewType
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in (Any, object):
        return value
    if origin in (Union, UnionType):
        return _first_that_fits(hint, arguments, value, place)
    if origin is Literal:
        if any(value == each and type(value) is type(each) for each in arguments):
            return value
        raise _misfit(hint, value, place)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(hint, value, place)
    if origin in (tuple, list, set, frozenset):
        return _collection(origin, arguments, value, place, hint)
    if is_dataclass(hint) or hasattr(hint, "_fields"):
        return _instance(hint, value, place)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(value)
        except ValueError:
            raise _misfit(hint, value, place) from None
    wanted = (float, int) if hint is float else (hint,)
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        raise _misfit(hint, value, place)
    return value


def _first_that_fits(hint: Any, alternatives: tuple[Any, ...], value: Any, place: str) -> Any:
    reasons: list[RecordError] = []
    for alternative in alternatives:
        if alternative is NoneType:
            if value is None:
                return None
            continue
        try:
            return _build(alternative, value, place)
        except RecordError as error:
            reasons.append(error)
    raise reasons[0] if len(reasons) == 1 and value is not None else _misfit(hint, value, place)


def _mapping(hint: Any, value: Any, place: str) -> Any:
    if not isinstance(value, Mapping):
        raise _misfit(hint, value, place)
    key_type, value_type = get_args(hint)
    made = {
        int(key) if key_type is int else key: _build(value_type, each, f"{place}.{key}")
        for key, each in value.items()
    }
    return made if get_origin(hint) is dict else MappingProxyType(made)


def _collection(origin: Any, arguments: tuple[Any, ...], value: Any, place: str, hint: Any) -> Any:
    if not isinstance(value, list):
        raise _misfit(hint, value, place)
    if origin is tuple and arguments[-1] is not Ellipsis:
        if len(value) != len(arguments):
            raise _misfit(hint, value, place)
        types = arguments
    else:
        types = (arguments[0],) * len(value)
    return origin(
        _build(type_, each, f"{place}[{at}]")
        for at, (type_, each) in enumerate(zip(types, value, strict=True))
    )


def _instance(owner: Any, value: Any, place: str) -> Any:
    if is_dataclass(owner):
        found = _values(owner, value, place)  # type: ignore[arg-type]
    elif isinstance(value, Mapping):
        hints = get_type_hints(owner)
        found = {n: _build(hints[n], value[n], f"{place}.{n}") for n in owner._fields if n in value}
    else:
        raise _misfit(owner, value, place)
    try:
        return owner(**found)
    except TypeError as error:
        raise RecordError(f"{place}: {error}") from None


def _misfit(hint: Any, value: Any, place: str) -> RecordError:
    return RecordError(f"{place}: expected {getattr(hint, '__name__', hint)}, got {value!r}")


def _descriptors(hint: Any, value: Any) -> Iterator[int]:
    if value is None:
        return
    arguments = get_args(hint)
    if hint is Descriptor:
        yield value
    elif get_origin(hint) in (Union, UnionType):
        for alternative in arguments:
            kind = int if alternative is Descriptor else get_origin(alternative) or alternative
            if isinstance(kind, type) and isinstance(value, kind):
                yield from _descriptors(alternative, value)
    elif is_dataclass(hint):
        hints = get_type_hints(hint)
        for field in _kept(hint):
            yield from _descriptors(hints[field.name], getattr(value, field.name))
    elif isinstance(value, Mapping) and len(arguments) == 2:
        for each in value.values():
            yield from _descriptors(arguments[1], each)
    elif isinstance(value, tuple | list | set | frozenset) and arguments:
        fixed = isinstance(value, tuple) and arguments[-1] is not Ellipsis
        for at, each in enumerate(value):
            yield from _descriptors(arguments[at if fixed else 0], each)
