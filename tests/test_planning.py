"""Planning is pure: laws over random row lengths, and small cases by hand."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import random_rows

from skill1.batching import Shape, checksum, folded_advantages, padding_waste, plan_updates


def shape(*lengths: tuple[int, int]) -> Shape:
    prompts, completions = np.array(lengths, dtype=np.int64).reshape(-1, 2).T
    return Shape(prompts, completions, np.ones(len(prompts), dtype=np.int64))


def plan(shape: Shape, trained=None, **changes):
    options = dict(world=1, rows_per_update=None, rows_per_micro_batch=64, tokens_per_micro_batch=10**6, seed=0, step=0)
    trained = np.ones(len(shape.rows), dtype=bool) if trained is None else np.array(trained, dtype=bool)
    return plan_updates(shape, trained, trained, **(options | changes))


steps = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20), st.booleans()), max_size=60)


@settings(max_examples=200, deadline=None)
@given(
    rows=steps,
    world=st.integers(1, 5),
    rows_per_update=st.none() | st.integers(1, 30),
    most_rows=st.integers(1, 9),
    most_tokens=st.integers(1, 300),
    seed=st.integers(0, 9),
    pool=st.integers(1, 4),
)
def test_every_trained_row_is_dealt_once_within_the_budgets(
    rows, world, rows_per_update, most_rows, most_tokens, seed, pool
):
    lengths = shape(*((p, c) for p, c, _ in rows))
    trained = [t for *_, t in rows]
    updates = plan(
        lengths,
        trained,
        world=world,
        rows_per_update=rows_per_update,
        rows_per_micro_batch=most_rows,
        tokens_per_micro_batch=most_tokens,
        seed=seed,
        pool=pool,
    )
    dealt = [i for u in updates for m in u.micro_batches for rank in m.ranks for i in rank]
    assert sorted(dealt) == [i for i, t in enumerate(trained) if t]
    for update in updates:
        assert rows_per_update is None or update.size <= rows_per_update
        assert sum(len(rank) for m in update.micro_batches for rank in m.ranks) >= 1
        for micro in update.micro_batches:
            assert len(micro.ranks) == world
            sizes = [len(rank) for rank in micro.ranks]
            assert max(sizes) - min(sizes) <= 1
            assert micro.tokens == sum(lengths.completions[i] for rank in micro.ranks for i in rank)
            for rank in micro.ranks:
                assert len(rank) <= most_rows
                assert len(rank) <= 1 or len(rank) * lengths.lengths[list(rank)].max() <= most_tokens


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 50), rows_per_update=st.integers(1, 20), world=st.integers(2, 4), step=st.integers(0, 5))
def test_which_rows_share_an_update_does_not_depend_on_ranks_or_micro_batches(count, rows_per_update, world, step):
    lengths = shape(*((5, 1 + i % 3) for i in range(count)))
    one = plan(lengths, rows_per_update=rows_per_update, step=step)
    many = plan(lengths, rows_per_update=rows_per_update, step=step, world=world, rows_per_micro_batch=2)

    def members(updates):
        return [{i for m in u.micro_batches for rank in m.ranks for i in rank} for u in updates]

    assert members(one) == members(many)
    assert sum(u.size for u in one) == count
    assert max(u.size for u in one) - min(u.size for u in one) <= 1


def test_the_split_changes_with_the_step_and_the_seed():
    lengths = shape(*[(5, 2)] * 40)
    first = plan(lengths, rows_per_update=20)
    assert plan(lengths, rows_per_update=20) == first
    assert plan(lengths, rows_per_update=20, step=1) != first
    assert plan(lengths, rows_per_update=20, seed=1) != first


def test_a_pool_of_updates_is_dealt_by_length_and_shuffled():
    lengths = shape(*((1, i) for i in (7, 2, 5, 4, 8, 1, 6, 3)))
    updates = plan(lengths, rows_per_update=2, pool=4)
    pairs = [sorted(lengths.completions[i] for i in u.micro_batches[0].ranks[0]) for u in updates]
    assert sorted(pairs) == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert {tuple(plan(lengths, rows_per_update=2, pool=4, step=step)) for step in range(9)} != {updates}


def test_257_rows_at_256_an_update_are_two_updates():
    assert [u.size for u in plan(shape(*[(5, 2)] * 257), rows_per_update=256)] == [129, 128]


def test_untrained_rows_count_in_the_denominator_only():
    (update,) = plan(shape((5, 2), (9, 2), (7, 2)), trained=[True, False, True])
    assert update.size == 3
    assert [m.ranks for m in update.micro_batches] == [((2, 0),)]  # longest first


def test_nothing_to_train_is_no_update():
    assert plan(shape()) == ()
    assert plan(shape((5, 2), (3, 1)), trained=[False, False]) == ()


def test_a_row_over_the_budget_goes_alone():
    (update,) = plan(shape((90, 20), (40, 9), (40, 10)), tokens_per_micro_batch=100)
    assert [m.ranks for m in update.micro_batches] == [((0,),), ((2, 1),)]


def test_padding_waste_by_hand():
    lengths = shape((6, 4), (3, 2), (8, 2))  # 10, 5, 10 tokens
    assert padding_waste(lengths, plan(lengths)) == pytest.approx(1 - 25 / 30)
    assert padding_waste(lengths, plan(lengths, world=3)) == 0  # each rank pads to its own longest row
    assert padding_waste(lengths, ()) == 0


def test_rows_without_tokens_are_refused_by_name():
    row = random_rows(1)[0]
    with pytest.raises(ValueError, match="query row of rollout 0, turn 0 has an empty completion"):
        Shape.of([replace(row, completion_ids=row.completion_ids[:0])])
    with pytest.raises(ValueError, match="empty prompt"):
        Shape.of([replace(row, prompt_ids=row.prompt_ids[:0])])
    assert Shape.of([row]).lengths.tolist() == [row.length]
    assert len(Shape.of([]).rows) == 0


def test_the_weight_is_folded_into_the_advantage():
    row = replace(random_rows(1)[0], advantage=-1.5, weight=0.3)
    assert folded_advantages([row, replace(row, weight=0.0)]) == pytest.approx([-0.45, 0.0])
    assert len(folded_advantages([])) == 0
    for bad in (dict(weight=-0.1), dict(advantage=float("nan")), dict(weight=float("inf"))):
        with pytest.raises(ValueError, match="must be finite and the weight >= 0"):
            folded_advantages([row, replace(row, **bad)])


def test_the_checksum_sees_order_and_every_field_of_the_loss():
    a, b = random_rows(2)
    same = checksum([a, b])
    assert checksum([replace(a), b]) == same
    changed = [
        [b, a],
        [a],
        [replace(a, advantage=a.advantage + 1e-9), b],
        [replace(a, weight=a.weight * 2), b],
        [replace(a, completion_ids=a.completion_ids + 1), b],
        [replace(a, prompt_ids=a.prompt_ids + 1), b],
    ]
    assert len({same, *map(checksum, changed)}) == len(changed) + 1
