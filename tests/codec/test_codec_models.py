"""pydantic models and dataclasses, and that the codec does without pydantic."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime
from typing import Any
from uuid import UUID

import pydantic
import pydantic.dataclasses
import pytest

from replayflow.codec import Codec, from_json
from replayflow.errors import DecodeError, EncodeError

CODEC = Codec()


class Item(pydantic.BaseModel):
    price: float
    tags: set[str] = set()


class Order(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    order_id: UUID = pydantic.Field(alias="orderId")
    items: list[Item]
    at: datetime | None = None

    @pydantic.computed_field
    def total(self) -> float:
        return sum(item.price for item in self.items)


class Prices(pydantic.RootModel[list[float]]):
    pass


class Opaque(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    inside: dict[str, Any]


@pydantic.dataclasses.dataclass
class Checked:
    count: int = pydantic.Field(gt=0)
    item: Item | None = None


ORDER = Order(orderId=UUID(int=1), items=[Item(price=1.5, tags={"a"}), Item(price=2)])


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (Order, ORDER),
        (list[Order], [ORDER]),
        (Order | None, ORDER),
        (Item | Order, ORDER),
        (Prices, Prices([1.5, 2.5])),
        (Checked, Checked(3, Item(price=1))),
        (dict[str, Checked], {"a": Checked(1)}),
    ],
    ids=str,
)
def test_a_model_is_rebuilt_for_its_annotation(annotation: Any, value: object) -> None:
    assert CODEC.decode(CODEC.encode(value), annotation) == value


def test_a_model_comes_as_a_dict_without_an_annotation() -> None:
    assert CODEC.decode(CODEC.encode(Item(price=1.5, tags={"a"}))) == {"price": 1.5, "tags": {"a"}}


def test_a_model_takes_json_by_its_aliases() -> None:
    payload = from_json('{"orderId": "00000000-0000-0000-0000-000000000001", "items": [{"price": 1}]}')
    assert CODEC.decode(payload, Order).items == [Item(price=1)]


def test_what_a_model_refuses_is_refused_with_its_path() -> None:
    payload = CODEC.encode([{"order_id": UUID(int=1), "items": [{"price": "many"}]}])
    with pytest.raises(DecodeError, match=r"^input\[0\]\.items\[0\]\.price: expected Order \(.*found str 'many'"):
        CODEC.decode(payload, list[Order], "input")
    with pytest.raises(DecodeError, match=r"^value\.count: expected Checked \(.*greater than 0.*found int 0"):
        CODEC.decode(CODEC.encode({"count": 0}), Checked)


def test_what_cannot_travel_inside_a_model_is_refused_with_its_path() -> None:
    with pytest.raises(EncodeError, match=r"^input\.inside\['a'\]: a value of type object cannot travel"):
        CODEC.encode(Opaque(inside={"a": object()}), "input")


def test_the_codec_never_imports_pydantic() -> None:
    program = """
import sys
from dataclasses import dataclass
from replayflow.codec import Codec, to_json
@dataclass
class Item:
    price: float
codec = Codec()
assert codec.decode(codec.encode([Item(1.5)]), list[Item]) == [Item(1.5)]
to_json(codec.encode({1}))
try:
    codec.encode(object())
except TypeError:
    pass
assert not any(name.startswith("pydantic") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"PYTHONPATH": ":".join(sys.path)})
