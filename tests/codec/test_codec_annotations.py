"""Values come back as what the receiver's annotation asks for."""

from __future__ import annotations

import collections
import enum
import sys
import uuid
from collections import abc
from dataclasses import KW_ONLY, InitVar, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Optional,
    Protocol,
    Required,
    TypedDict,
    TypeVar,
    Union,
)

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replayflow.codec import Codec
from replayflow.errors import DecodeError

CODEC = Codec()
T = TypeVar("T")
Bound = TypeVar("Bound", bound=int)
Either = TypeVar("Either", int, str)
UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Text(str):
    __slots__ = ()


class Point(NamedTuple):
    x: int
    at: datetime | None = None


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Remake(Movie, total=False):
    of: Required[Movie]
    colors: list[Color]


@dataclass
class Item:
    name: str
    price: float = 0.0


@dataclass(slots=True, frozen=True)
class Order:
    id: uuid.UUID
    items: list[Item]
    kind: Literal["web", "shop"] = "web"
    tags: set[str] = field(default_factory=set)
    total: Decimal | None = None
    limit: ClassVar[int] = 3


@dataclass
class Express(Item):
    _: KW_ONLY
    hours: Final[int] = 1
    label: str = field(init=False)

    def __post_init__(self) -> None:
        self.label = f"{self.name} in {self.hours} h"


@dataclass
class Node:
    value: int
    children: list[Node] = field(default_factory=list)
    parent: Optional[Node] = None  # noqa: UP045 - the older spelling is one of the cases


@dataclass
class Box(Generic[T]):
    content: T
    others: list[Box[T]] = field(default_factory=list)


@dataclass
class IntBox(Box[int], Generic[T]):
    extra: T | None = None


@dataclass
class Cat:
    name: str
    lives: int = 9


@dataclass
class Dog:
    name: str
    barks: bool
    age: int = 1


@dataclass(frozen=True)
class Key:
    number: int


class Unresolved(NamedTuple):
    value: Missing  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


ORDER = Order(uuid.UUID(int=7), [Item("a", 1.5), Item("b")], "shop", {"x"}, Decimal("1.50"))
NOW = datetime(2024, 5, 6, 7, 8, tzinfo=UTC)

REBUILT: list[tuple[Any, object]] = [
    (int, 5),
    (None, None),
    (object, {"a": (1,)}),
    (Color, Color.BLUE),
    (Level, Level.HIGH),
    (Mode, Mode.READ | Mode.WRITE),
    (Text, Text("a")),
    (Point, Point(1, NOW)),
    (Movie, {"title": "a"}),
    (Remake, {"title": "a", "of": {"title": "b", "year": 1950}, "colors": [Color.RED]}),
    (Item, Item("a", 2.0)),
    (Order, ORDER),
    (Express, Express("a", hours=3)),
    (Node, Node(1, [Node(2, [Node(3)])], Node(0))),
    (Box[Item], Box(Item("a"), [Box(Item("b"))])),
    (Box[list[Color]], Box([Color.RED], [Box([Color.BLUE])])),
    (IntBox[Item], IntBox(1, [Box(2)], Item("a"))),
    (list[Order], [ORDER, ORDER]),
    (tuple[Item, ...], (Item("a"), Item("b"))),
    (tuple[Item, int], (Item("a"), 1)),
    (tuple[()], ()),
    (set[Key], {Key(1), Key(2)}),
    (frozenset[Key], frozenset({Key(1)})),
    (dict[Key, list[Item]], {Key(1): [Item("a")]}),
    (dict[Color, Item], {Color.RED: Item("a")}),
    (abc.Sequence[Item], [Item("a")]),
    (abc.Sequence[Item], (Item("a"),)),
    (abc.Iterable[int], frozenset({1})),
    (abc.Collection[Color], [Color.RED]),
    (abc.MutableSequence[Item], [Item("a")]),
    (abc.Mapping[str, Item], {"a": Item("a")}),
    (abc.MutableMapping[str, Item], {"a": Item("a")}),
    (abc.Set[Key], {Key(1)}),
    (abc.Set[int], frozenset({1})),
    (collections.OrderedDict[str, Item], collections.OrderedDict(a=Item("a"))),
    (collections.Counter[str], collections.Counter("aab")),
    (bytearray, bytearray(b"a")),
    (Optional[Item], None),  # noqa: UP045
    (Optional[Item], Item("a")),  # noqa: UP045
    (Union[int, str], "5"),  # noqa: UP007
    (float | int, 5),
    (str | datetime, NOW),
    (int | list[Item], [Item("a")]),
    (Color | str, Color.RED),
    (Cat | Dog, Dog("a", True)),
    (Dog | Cat, Cat("a")),
    (list[Cat | Dog], [Cat("a"), Dog("b", False), Cat("c", 1)]),
    (list[Cat] | list[int], [1]),
    (Literal["a", 1, Color.RED], Color.RED),
    (Annotated[Item, "note"], Item("a")),
    (UserId, UserId(5)),
    (list[UserId], [5]),
    (T, {"a": 1}),
    (Bound, 5),
    (Either, "a"),
]


@pytest.mark.parametrize(("annotation", "value"), REBUILT, ids=str)
def test_a_value_is_rebuilt_for_its_annotation(annotation: Any, value: object) -> None:
    back = CODEC.decode(CODEC.encode(value), annotation)
    assert back == value
    assert type(back) is type(value)
    assert CODEC.decoder(annotation)(CODEC.encode(value)) == value


LENIENT: list[tuple[Any, object, object]] = [
    (float, 5, 5.0),
    (list[float], [1, 2.5], [1.0, 2.5]),
    (datetime, "2024-05-06T07:08:00Z", NOW),
    (date, "2024-05-06", date(2024, 5, 6)),
    (time, "07:08", time(7, 8)),
    (timedelta, 1.5, timedelta(seconds=1.5)),
    (timedelta, 90, timedelta(seconds=90)),
    (Decimal, "1.10", Decimal("1.10")),
    (Decimal, 3, Decimal(3)),
    (uuid.UUID, str(uuid.UUID(int=5)), uuid.UUID(int=5)),
    (tuple[int, str], [1, "a"], (1, "a")),
    (tuple[int, ...], [1, 2], (1, 2)),
    (set[int], [1, 2], {1, 2}),
    (frozenset[int], [1, 2], frozenset({1, 2})),
    (Point, [1, "2024-05-06T07:08:00+00:00"], Point(1, NOW)),
    (float | str, 5, 5.0),
    (datetime | None, "2024-05-06T07:08:00Z", NOW),
    (Item, {"name": "a", "price": 2, "unknown": 1}, Item("a", 2.0)),
]


@pytest.mark.parametrize(("annotation", "value", "rebuilt"), LENIENT, ids=str)
def test_the_spellings_of_other_systems_are_taken(annotation: Any, value: object, rebuilt: object) -> None:
    back = CODEC.decode(CODEC.encode(value), annotation)
    assert back == rebuilt
    assert type(back) is type(rebuilt)


class Unchecked(Protocol):
    def method(self) -> int: ...


class Arbitrary:
    pass


@dataclass
class WithInitVar:
    value: int
    scale: InitVar[int] = 1


@dataclass
class Picky:
    value: int

    def __post_init__(self) -> None:
        raise ValueError("never good enough")


REFUSED: list[tuple[Any, object, str]] = [
    (int, "abc", "value: expected int, found str 'abc'"),
    (int, None, "value: expected int, found None"),
    (int, True, "value: expected int, found bool True"),
    (int, 1.0, "value: expected int, found float 1.0"),
    (str, 1, "value: expected str, found int 1"),
    (float, "1", "value: expected float, found str '1'"),
    (float, 10**400, "value: expected float, found int <"),
    (bytes, "YQ==", "value: expected bytes, found str 'YQ=='"),
    (datetime, "yesterday", "value: expected datetime, found str 'yesterday'"),
    (timedelta, float("nan"), "value: expected timedelta, found float nan"),
    (Decimal, "x", "value: expected Decimal, found str 'x'"),
    (Decimal, 1.5, "value: expected Decimal, found float 1.5"),
    (uuid.UUID, "x", "value: expected UUID, found str 'x'"),
    (list[int], (1,), "value: expected list[int], found tuple (1,)"),
    (list[int], [1, 2, "x"], "value[2]: expected int, found str 'x'"),
    (tuple[int, str], (1, 2), "value[1]: expected str, found int 2"),
    (tuple[int, str], (1,), "value: expected tuple[int, str] (2 items), found tuple (1,)"),
    (dict[str, int], {"a": 1, "b": "x"}, "value['b']: expected int, found str 'x'"),
    (dict[int, int], {"a": 1}, "value[key str 'a']: expected int, found str 'a'"),
    (dict[list[int], int], {(1,): 1}, "value[key tuple (1,)]: expected list[int], found tuple (1,)"),
    (set[list[int]], [[1]], "value: set[list[int]] cannot be built: TypeError: "),
    (Item, [], "value: expected Item, found list []"),
    (Item, {"name": 1}, "value.name: expected str, found int 1"),
    (list[Item], [{"name": "a", "price": "1"}], "value[0].price: expected float, found str '1'"),
    (Point, (), "value: expected Point (2 fields), found tuple ()"),
    (Point, ("x",), "value.x: expected int, found str 'x'"),
    (Movie, {"year": 1}, "value.title: expected str, found nothing: Movie.title has no default"),
    (Color, "green", "value: expected a value of Color, found str 'green'"),
    (Level, True, "value: expected a value of Level, found bool True"),
    (Literal["a"], "b", "value: expected Literal['a'], found str 'b'"),
    (Literal[1], True, "value: expected Literal[1], found bool True"),
    (int | str, 1.5, "value: expected int | str, found float 1.5"),
    (Item | None, {"name": 1}, "value.name: expected str, found int 1"),
    (Cat | Dog, {"name": 1}, "value: expected Cat | Dog, found dict {'name': 1}; as Cat.name: expected str"),
    (Picky, {"value": 1}, "value: Picky cannot be built: ValueError: never good enough"),
    (WithInitVar, {"value": 1}, "value: WithInitVar has the InitVar 'scale'"),
    (Unchecked, 1, "value: the annotation Unchecked is none"),
    (Arbitrary, 1, "value: the annotation Arbitrary is none"),
    (abc.Callable[[], int], 1, "value: the annotation Callable[[], int] is none"),
    (tuple[int, *tuple[str, ...]], (1,), "has an unpacked part"),
    (list["Item"], [1], "value[0]: the annotation 'Item' is text that was not resolved"),
    (Unresolved, (1,), "value: the annotations of Unresolved name 'Missing', which is not in the module"),
]


@pytest.mark.parametrize(("annotation", "value", "message"), REFUSED, ids=str)
def test_a_value_that_does_not_fit_is_refused_with_its_path(annotation: Any, value: object, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(CODEC.encode(value), annotation)
    assert message in str(caught.value)


def test_a_missing_field_without_default_names_its_path() -> None:
    payload = CODEC.encode({"items": [{"name": "a"}, {"price": 1}], "id": uuid.UUID(int=1)})
    with pytest.raises(DecodeError, match=r"^input\.items\[1\]\.name: expected str, found nothing: Item\.name has no"):
        CODEC.decode(payload, Order, "input")


def test_what_was_found_is_cut_to_eighty_characters() -> None:
    with pytest.raises(DecodeError) as caught:
        CODEC.decode(CODEC.encode("x" * 10_000), int)
    assert len(str(caught.value)) < 130


def test_an_instance_of_an_arbitrary_class_passes() -> None:
    assert CODEC.decode(CODEC.encode([1]), abc.Sized) == [1]
    assert CODEC.decode(CODEC.encode("a"), abc.Hashable) == "a"


def test_the_order_of_a_union_decides_even_where_unions_are_equal() -> None:
    payload = CODEC.encode(Cat("a"))
    first, second = list[Cat | Item], list[Item | Cat]
    assert first == second
    assert CODEC.decode(CODEC.encode([{"name": "a"}]), first) == [Cat("a")]
    assert CODEC.decode(CODEC.encode([{"name": "a"}]), second) == [Item("a")]
    assert CODEC.decode(payload, Item | Cat) == Cat("a")


def test_a_record_goes_to_the_member_that_knows_its_keys_after_a_field_was_added() -> None:
    assert CODEC.decode(CODEC.encode({"name": "a", "barks": True}), Cat | Dog) == Dog("a", True)


def test_a_class_from_inside_a_function_may_contain_itself() -> None:
    @dataclass
    class Local:
        value: int
        more: list[Local] = field(default_factory=list)

    value = Local(1, [Local(2)])
    assert CODEC.decode(CODEC.encode(value), Local) == value


def test_a_field_without_a_value_is_left_to_the_class() -> None:
    @dataclass
    class Lazy:
        known: int
        later: int = field(init=False)

    payload = CODEC.encode(Lazy(1))
    assert CODEC.decode(payload) == {"known": 1}
    assert CODEC.decode(payload, Lazy).known == 1


def test_a_state_that_changed_after_construction_comes_back() -> None:
    express = Express("a")
    express.label = "changed"
    assert CODEC.decode(CODEC.encode(express), Express).label == "changed"


def test_attributes_that_are_no_fields_do_not_travel() -> None:
    item = Item("a")
    item.__dict__["cached"] = 1
    assert CODEC.decode(CODEC.encode(item)) == {"name": "a", "price": 0.0}


def test_a_default_dict_comes_back_as_one() -> None:
    back = CODEC.decode(CODEC.encode({"a": [1]}), collections.defaultdict[str, list[int]])
    assert type(back) is collections.defaultdict
    assert back == {"a": [1]}


def test_a_decoder_is_compiled_once() -> None:
    assert CODEC.decoder(Order) is CODEC.decoder(Order)
    assert CODEC.decoder(int) is CODEC.decoder(int)


def test_an_alias_type_of_typing_extensions_is_followed() -> None:
    import typing_extensions

    alias: Any = typing_extensions.TypeAliasType  # the type checkers only know it at the top of a module
    unresolved = alias("unresolved", list["Item"])
    pair = alias("pair", tuple[T, T], type_params=(T,))  # type: ignore[valid-type]  # pyright: ignore
    assert CODEC.decode(CODEC.encode((Item("a"), Item("b"))), pair[Item]) == (Item("a"), Item("b"))
    with pytest.raises(DecodeError, match="text that was not resolved"):
        CODEC.decode(CODEC.encode([[1]]), unresolved)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="`type X = ...` came with Python 3.12")
def test_a_type_statement_is_followed() -> None:
    scope: dict[str, Any] = {}
    exec("type Json = int | list[Json] | dict[str, Json]", scope)  # noqa: S102 - older interpreters cannot parse it
    assert CODEC.decode(CODEC.encode([{"a": [1]}]), scope["Json"]) == [{"a": [1]}]
    with pytest.raises(DecodeError):
        CODEC.decode(CODEC.encode([{"a": ["x"]}]), scope["Json"])


@dataclass
class Add:
    left: Add | Sub | int
    right: Add | Sub | int
    unit: list[Literal["add"]]


@dataclass
class Sub:
    left: Add | Sub | int
    right: Add | Sub | int
    unit: list[Literal["sub"]]


def test_ambiguous_unions_at_every_depth_do_not_hang() -> None:
    tree: Any = 1
    for _ in range(60):
        tree = {"left": tree, "right": 1, "unit": ["sub"]}
    with pytest.raises(DecodeError, match="took too many tries"):
        CODEC.decode(CODEC.encode(tree), Add | Sub)


def test_a_long_list_of_records_of_a_union_is_no_hang() -> None:
    records = [Sub(1, 2, ["sub"]) for _ in range(20_000)]
    assert CODEC.decode(CODEC.encode(records), list[Add | Sub]) == records


ITEMS = st.builds(Item, st.text(), st.floats(allow_nan=False))
ORDERS = st.builds(
    Order,
    st.uuids(),
    st.lists(ITEMS, max_size=3),
    st.sampled_from(["web", "shop"]),
    st.sets(st.text(max_size=3), max_size=3),
    st.none() | st.decimals(allow_nan=False),
)
NODES = st.recursive(
    st.builds(Node, st.integers()),
    lambda node: st.builds(Node, st.integers(), st.lists(node, max_size=3), st.none() | node),
    max_leaves=10,
)


@given(ORDERS, NODES, st.lists(st.builds(Cat, st.text()) | st.builds(Dog, st.text(), st.booleans())))
def test_any_tree_of_dataclasses_comes_back_equal(order: Order, node: Node, pets: list[Cat | Dog]) -> None:
    assert CODEC.decode(CODEC.encode(order), Order) == order
    assert CODEC.decode(CODEC.encode(node), Node) == node
    assert CODEC.decode(CODEC.encode(pets), list[Cat | Dog]) == pets
