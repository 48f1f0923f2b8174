"""What a suspended invocation waits for: woken by what it needs, never before, in whatever order things arrive."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from holdfast.core.awaiting import Leaf, from_json, resolve, to_json
from holdfast.protocol.messages import Awaited

ANY, ALL = 1, 2

SATISFIED = None


def nested(*children: Awaited, combinator: int = ANY, signals: tuple[int, ...] = ()) -> Awaited:
    return Awaited(signals=signals, nested=children, combinator=combinator)


TABLE: dict[str, tuple[Awaited, list[Leaf], Awaited | None]] = {
    "any: first completion": (Awaited((1, 2)), [(1,)], SATISFIED),
    "any: second completion": (Awaited((1, 2)), [(2,)], SATISFIED),
    "any: another one": (Awaited((1, 2)), [(3,)], Awaited((1, 2))),
    "any: signal": (Awaited((1,), (17,)), [17], SATISFIED),
    "any: a signal is no completion of the same number": (Awaited((17,)), [17], Awaited((17,))),
    "any: a completion is no signal of the same number": (Awaited((), (17,)), [(17,)], Awaited((), (17,))),
    "any: name": (Awaited(names=("go",)), ["go"], SATISFIED),
    "any: cancel": (Awaited((1,), (1,)), [1], SATISFIED),
    "nothing awaited: nothing wakes it": (Awaited(), [(1,)], Awaited()),
    "all: one of two": (Awaited((1, 2), combinator=ALL), [(1,)], Awaited((2,), combinator=ALL)),
    "all: both": (Awaited((1, 2), combinator=ALL), [(1,), (2,)], SATISFIED),
    "all: both, the other way": (Awaited((1, 2), combinator=ALL), [(2,), (1,)], SATISFIED),
    "all: the same one twice": (Awaited((1, 2), combinator=ALL), [(1,), (1,)], Awaited((2,), combinator=ALL)),
    "all: of three kinds": (Awaited((1,), (17,), ("go",), combinator=ALL), ["go", (1,), 17], SATISFIED),
    "all: two of one name, one arrived": (
        Awaited(names=("go", "go"), combinator=ALL),
        ["go"],
        Awaited(names=("go",), combinator=ALL),
    ),
    "all: two of one name, two arrived": (Awaited(names=("go", "go"), combinator=ALL), ["go", "go"], SATISFIED),
    "cancel or all: cancel": (nested(Awaited((1, 2), combinator=ALL), signals=(1,)), [1], SATISFIED),
    "cancel or all: one of two": (
        nested(Awaited((1, 2), combinator=ALL), signals=(1,)),
        [(1,)],
        nested(Awaited((2,), combinator=ALL), signals=(1,)),
    ),
    "cancel or all: both": (nested(Awaited((1, 2), combinator=ALL), signals=(1,)), [(1,), (2,)], SATISFIED),
    "all of any: one child": (
        nested(Awaited((1, 2)), Awaited((3,)), combinator=ALL),
        [(2,)],
        nested(Awaited((3,)), combinator=ALL),
    ),
    "all of any: each child": (nested(Awaited((1, 2)), Awaited((3,)), combinator=ALL), [(2,), (3,)], SATISFIED),
    "one leaf in two children": (nested(Awaited((1,)), Awaited((1,)), combinator=ALL), [(1,)], SATISFIED),
    "first success or all failed: any leaf wakes": (Awaited((1, 2), combinator=3), [(2,)], SATISFIED),
    "all succeeded or first failure: any leaf wakes": (Awaited((1, 2), combinator=4), [(1,)], SATISFIED),
}


@pytest.mark.parametrize(("tree", "arrived", "rest"), TABLE.values(), ids=TABLE.keys())
def test_resolve(tree: Awaited, arrived: list[Leaf], rest: Awaited | None):
    assert after(tree, arrived) == rest


def after(tree: Awaited, arrived: list[Leaf]) -> Awaited | None:
    left: Awaited | None = tree
    for leaf in arrived:
        left = resolve(left, leaf) if left is not None else None
    return left


def test_what_changes_nothing_is_the_same_object():
    tree = nested(Awaited((1,)), combinator=ALL)
    assert resolve(tree, (2,)) is tree  # so that nothing is written


small = st.integers(1, 6)
leaves: st.SearchStrategy[Leaf] = st.tuples(small) | st.integers(17, 19) | st.sampled_from(["a", "b"])


def _distinct(values: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(values, max_size=3, unique=True).map(tuple)


trees = st.recursive(
    st.builds(
        Awaited,
        completions=_distinct(small),
        signals=_distinct(st.integers(17, 19)),
        names=st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True).map(tuple),
        combinator=st.sampled_from([ANY, ALL]),
    ).filter(lambda tree: not tree.is_empty),
    lambda inner: st.builds(
        Awaited,
        completions=_distinct(small),
        nested=st.lists(inner, min_size=1, max_size=3).map(tuple),
        combinator=st.sampled_from([ANY, ALL]),
    ),
    max_leaves=5,
)


def is_satisfied(tree: Awaited, arrived: set[Leaf]) -> bool:
    """What the combinators mean, said independently of the order of arrival."""
    parts = [leaf in arrived for leaf in Awaited(tree.completions, tree.signals, tree.names).leaves()]
    parts += [is_satisfied(child, arrived) for child in tree.nested]
    return all(parts) if tree.combinator == ALL else any(parts)


@given(trees, st.lists(leaves, max_size=10))
def test_it_wakes_exactly_when_the_tree_is_satisfied(tree: Awaited, arrivals: list[Leaf]):
    left: Awaited | None = tree
    for count, leaf in enumerate(arrivals, start=1):
        left = resolve(left, leaf) if left is not None else None
        assert (left is None) == is_satisfied(tree, set(arrivals[:count]))


@given(trees, st.data())
def test_the_order_of_arrival_does_not_matter(tree: Awaited, data: st.DataObject):
    everything = list(dict.fromkeys(tree.leaves()))
    arrived = data.draw(st.lists(st.sampled_from(everything), unique=True))
    other = data.draw(st.permutations(arrived))
    one, two = after(tree, arrived), after(tree, list(other))
    assert (one is None) == (two is None)
    assert after(tree, everything) is None


@given(st.lists(small, min_size=1, unique=True), st.data())
def test_all_needs_every_leaf(numbers: list[int], data: st.DataObject):
    order = data.draw(st.permutations(numbers))
    tree = Awaited(tuple(numbers), combinator=ALL)
    for missing in range(1, len(order) + 1):
        rest = after(tree, [(number,) for number in order[:-missing]])
        assert rest is not None
        assert set(rest.completions) == set(order[-missing:])
    assert after(tree, [(number,) for number in order]) is None


@given(trees)
def test_json_round_trip(tree: Awaited):
    assert from_json(to_json(tree)) == tree


@given(trees, leaves)
def test_a_stored_tree_goes_on_as_before(tree: Awaited, leaf: Leaf):
    rest = resolve(tree, leaf)
    assume(rest is not None)
    assert rest is not None
    assert resolve(from_json(to_json(tree)), leaf) == rest
