"""Every shipped task: sound by its own check, its docstring true, its arguments checked, its held-out prompts apart."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

import pytest

from sparselit.data.soundness import examine
from sparselit.data.task import Task
from sparselit.errors import SparselitError

TASKS = import_module("sparselit.tasks")
SIZES = {"pool": 2048, "discovery": 256, "selection": 256, "report": 1024}
NEED_ARGUMENTS = {"FileTask", "Mixture"}
NAMES = [name for name in TASKS.__all__ if issubclass(getattr(TASKS, name), Task) and name not in NEED_ARGUMENTS]


def make(name: str, **arguments) -> Task:
    return getattr(TASKS, name)(**{**SIZES, **arguments})


def rows(task, split):
    examples = task.split(split)
    for i, n in enumerate(examples.length.tolist()):
        yield task.decode(examples.tokens[i, :n]), task.decode([examples.answer[i]])


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_task_is_sound_and_all_its_corrupted_prompts_are_verified(name):
    found = examine(make(name))
    assert found.faults == ()
    assert found.verified == found.corrupted > 1000 or name.startswith("Modular")


@pytest.mark.parametrize("name", [*NAMES, "FileTask"])  # a mixture has no prompts of its own
def test_a_task_is_a_class_of_at_most_sixty_lines(name):
    assert len(inspect.getsource(getattr(TASKS, name)).splitlines()) <= 60


@pytest.mark.parametrize(
    "name", ["Comparison", "Copying", "IndirectObject", "Induction", "KeyValueRecall", "Reversing"]
)
def test_a_prompt_and_its_corrupted_prompt_are_of_one_family_so_that_no_prompt_is_lost(name):
    task = make(name)
    for split in ("train", "discovery"):
        examples = task.split(split)
        for tokens, corrupted, n in zip(examples.tokens, examples.corrupted, examples.length.tolist(), strict=True):
            prompt, other = task.decode(tokens[:n]), task.decode(corrupted[:n])
            assert prompt != other
            assert task.family(prompt) == task.family(other)


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_in_the_docstring_are_true(name):
    task = make(name)
    shown = re.findall(r"``([^`]+)``\s*→\s*``([^`]+)``", type(task).__doc__ or "")
    assert shown
    for prompt, answer in ((prompt.replace("\\n", "\n"), answer.replace("\\n", "\n")) for prompt, answer in shown):
        task.encode(prompt)
        assert task.solve(prompt) == answer, prompt


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("Quotes", "EscapedQuotes", "NestedQuotes")])
def test_out_of_distribution_prompts_are_of_another_kind(name):
    task = make(name)
    known = {prompt for prompt, _ in rows(task, "train")}
    strange = [prompt for prompt, _ in rows(task, "out_of_distribution")]
    assert not known & set(strange)
    if name == "Comparison":  # they differ in one digit
        assert all(sum(a != b for a, b in zip(*text[:-1].split(","), strict=True)) == 1 for text in strange)
    elif name != "IndirectObject":
        assert max(map(len, strange)) > max(map(len, known))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("BracketType", {"kinds": 3, "depth": 2}),
        ("VariableType", {"names": "fixed", "numbers": 3}),
        ("Comparison", {"digits": 2}),
        ("ModularAddition", {"modulus": 70}),
        ("Parity", {"length": 12}),
        ("Copying", {"letters": 4, "length": 8}),
        ("Quotes", {"source": "synthetic", "distractors": 1.0}),
    ],
)
def test_other_arguments_give_sound_tasks_too(name, arguments):
    assert examine(make(name, **arguments)).faults == ()


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("BracketDepth", "length", 5),
        ("BracketType", "kinds", 4),
        ("BracketType", "pairs", 1),
        ("Comparison", "digits", 0),
        ("Copying", "length", 2),
        ("Copying", "letters", 40),
        ("EscapedQuotes", "length", 8),
        ("FirstToken", "length", 1),
        ("FirstToken", "letters", 1),
        ("IndirectObject", "names", 2),
        ("Induction", "length", 3),
        ("Induction", "letters", 9),
        ("KeyValueRecall", "pairs", 9),
        ("MajorityToken", "length", 4),
        ("MajorityToken", "letters", 1),
        ("Minimum", "length", 3),
        ("ModularAddition", "modulus", 2),
        ("ModularMultiplication", "modulus", 21),
        ("NestedQuotes", "length", 10),
        ("Parity", "length", 1),
        ("Reversing", "length", 2),
        ("VariableType", "names", "some"),
        ("VariableType", "numbers", 4),
    ],
)
def test_a_wrong_argument_is_named(name, key, value):
    with pytest.raises(SparselitError, match=rf"data\.{key} must .* got '?{value}"):
        make(name, **{key: value})


@pytest.mark.parametrize("name", ["ModularAddition", "ModularMultiplication"])
def test_modular_tables_are_covered_and_hold_out_both_orders(name):
    task = getattr(TASKS, name)()
    held = {
        split: {prompt for prompt, _ in rows(task, split)} for split in ("train", "discovery", "selection", "report")
    }
    table = len(task.operands()) ** 2
    assert sum(map(len, held.values())) > 0.95 * table
    assert len(held["train"]) == pytest.approx(0.75 * table, abs=50)
    trained = {frozenset(prompt[::2]) for prompt in held.pop("train")}
    assert not trained & {frozenset(prompt[::2]) for prompts in held.values() for prompt in prompts}


def test_parity_finds_the_whole_domain():
    task = TASKS.Parity(length=8)
    assert sum(len(task.split(split).length) for split in ("train", "discovery", "selection", "report")) > 0.8 * 256
