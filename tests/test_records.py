"""Dataclasses as plain values and back, by the types of their fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple

import pytest

from prefork.config import load
from prefork.config.schema import Config
from prefork.records import TRANSIENT, Descriptor, RecordError, build, descriptors, plain, restore


class Colour(Enum):
    RED = "red"


class Pair(NamedTuple):
    left: int
    right: int = 2


@dataclass(frozen=True)
class Leaf:
    fd: Descriptor
    name: str = "leaf"


@dataclass
class Tree:
    leaves: tuple[Leaf, ...] = ()
    ends: tuple[Descriptor, Descriptor] | None = None
    colour: Colour = Colour.RED
    share: float | int = 0.5
    workers: int | Literal["auto"] = "auto"
    by_number: dict[int, Leaf] = field(default_factory=dict)
    names: Mapping[str, tuple[Descriptor, ...]] = field(default_factory=dict)
    numbers: set[int] = field(default_factory=set)
    pair: Pair | None = None
    anything: Any = None
    _private: bool = field(init=False, default=False)
    clock: object = field(init=False, default=None, metadata=TRANSIENT)


def test_round_trip_and_descriptors() -> None:
    tree = Tree(
        leaves=(Leaf(Descriptor(3)), Leaf(Descriptor(4), "other")),
        ends=(Descriptor(5), Descriptor(6)),
        share=4,
        workers=7,
        by_number={1: Leaf(Descriptor(8))},
        names={"web": (Descriptor(9), Descriptor(10))},
        numbers={2, 1},
        pair=Pair(5, 6),
        anything={"a": [1]},
    )
    tree._private = True
    value = json.loads(json.dumps(plain(tree)))
    again = Tree()
    restore(again, value)
    assert again == tree
    assert isinstance(again.share, int)
    assert sorted(descriptors(again)) == [3, 4, 5, 6, 8, 9, 10]


def test_versions_may_differ() -> None:
    """What is missing has its default, what is unknown is left out."""
    assert build(Leaf, {"fd": 3, "later": True}) == Leaf(Descriptor(3))
    assert build(Pair, {"left": 4, "middle": 5}) == Pair(4, 2)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"leaves": [{"name": "no descriptor"}]}, r"Tree\.leaves\[0\]: .*'fd'"),
        ({"leaves": [{"fd": "3"}]}, r"Tree\.leaves\[0\]\.fd: expected int, got '3'"),
        ({"leaves": [{"fd": True}]}, r"Tree\.leaves\[0\]\.fd: expected int, got True"),
        ({"ends": [1]}, r"Tree\.ends: expected"),
        ({"colour": "blue"}, r"Tree\.colour: expected Colour, got 'blue'"),
        ({"workers": "many"}, r"Tree\.workers: expected .* got 'many'"),
        ({"names": []}, r"Tree\.names: expected"),
        ([], r"Tree: expected Tree, got \[\]"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(value: object, told: str) -> None:
    with pytest.raises(RecordError, match=told):
        restore(Tree(), value)


def test_what_has_no_plain_form_is_told() -> None:
    with pytest.raises(RecordError, match="its type object has no plain form"):
        plain({"a": object()})


def test_a_whole_config_survives() -> None:
    config = load(["config/example.yaml"], environ={}).config
    assert build(Config, json.loads(json.dumps(plain(config)))) == config
