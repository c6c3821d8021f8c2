"""Modular addition and parity."""

from __future__ import annotations

import pytest
from sparselit.tasks import ModularAddition, Parity

from sparselit.errors import SparselitError

SPLITS = ("train", "discovery", "selection", "report")
TASKS = [ModularAddition(), ModularAddition(modulus=70), Parity(), Parity(length=12, report=500)]


def rows(task, split):
    examples = task.split(split)
    for i, n in enumerate(examples.length.tolist()):
        yield (
            task.decode(examples.tokens[i, :n]),
            task.decode([examples.answer[i]]),
            task.decode([examples.wrong[i]]),
            task.decode(examples.corrupted[i, :n]),
        )


def solve(task, prompt):
    if isinstance(task, Parity):
        return str(prompt.count("1") % 2)
    a, b = (task.vocabulary.index(c) for c in (prompt[0], prompt[2]))
    return task.vocabulary[(a + b) % task.modulus]


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_right_and_the_counterpart_makes_wrong_right(task):
    for split in SPLITS:
        for prompt, answer, wrong, corrupted in rows(task, split):
            assert solve(task, prompt) == answer
            assert solve(task, corrupted) == wrong
            assert sum(a != b for a, b in zip(prompt, corrupted, strict=True)) == 1
            assert len(prompt) == task.max_length


@pytest.mark.parametrize("task", TASKS)
def test_splits_are_disjoint_by_prompt_and_counterpart(task):
    seen: dict[str, str] = {}
    for split in SPLITS:
        for prompt, _, _, corrupted in rows(task, split):
            assert seen.setdefault(prompt, split) == split
            assert seen.setdefault(corrupted, split) == split


def test_modular_addition_covers_the_table_and_holds_out_both_orders():
    task = ModularAddition()
    held = {split: {row[0] for row in rows(task, split)} for split in SPLITS}
    assert sum(map(len, held.values())) > 0.95 * 23**2
    assert len(held["train"]) == pytest.approx(0.75 * 23**2, abs=50)
    trained = {frozenset(prompt[::2]) for prompt in held["train"]}
    assert not trained & {frozenset(prompt[::2]) for split in SPLITS[1:] for prompt in held[split]}


def test_parity_is_balanced_and_finds_the_whole_domain():
    task = Parity(length=8)
    assert sum(len(task.split(split).length) for split in SPLITS) > 0.8 * 256
    assert Parity(length=16, report=4000).split("report").answer.float().mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(("make", "value"), [(ModularAddition, {"modulus": 2}), (Parity, {"length": 1})])
def test_a_wrong_argument_is_named(make, value):
    ((key, number),) = value.items()
    with pytest.raises(SparselitError, match=rf"data\.{key} must .* got {number}"):
        make(**value)
