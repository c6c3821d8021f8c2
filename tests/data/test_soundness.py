"""The check of tasks is green on a sound one and red on each planted fault; the simple rules score what they must."""

from __future__ import annotations

import random
from itertools import count
from typing import ClassVar

import pytest

from sparselit.data.baselines import baseline_accuracies, visible_accuracy
from sparselit.data.soundness import examine
from sparselit.data.task import Example, Task
from sparselit.errors import SparselitError
from tests.planted import Imbalance, Leak, Majority, Shortcut, Unflipped, Visible


def small(kind, **arguments):
    return kind(**{"pool": 600, "discovery": 100, "selection": 100, "report": 300, **arguments})


def test_a_sound_task_has_no_fault_and_its_exemption_is_reported():
    found = examine(small(Majority))
    assert found.faults == ()
    assert found.excused == {"bag of characters": "only the counts matter"}
    assert (found.chance, found.optimum) == (0.5, 1.0)
    assert found.verified == found.corrupted == 1100


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Leak, "the splits train and report share 600 prompts, such as "),
        (Imbalance, "the answer 'a' is right for 9"),
        (Shortcut, "fixed position: this alone gets 100.0 % of held-out prompts right"),
        (Visible, "answer visible: this alone gets 100.0 % of held-out prompts right"),
        (Unflipped, "does not flip the answer to"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_planted_fault_is_found(kind, fault):
    assert any(fault in found for found in examine(small(kind)).faults)


def test_only_the_planted_fault_is_found():
    assert len(examine(small(Leak)).faults) == 1
    assert len(examine(small(Unflipped)).faults) == 1


def test_an_answer_that_solve_contradicts_is_found():
    class Noisy(Majority):
        mirrored = False

        def sample(self, rng):
            example = super().sample(rng)
            swapped = example._replace(answer=example.wrong, wrong=example.answer, corrupted=None)
            return example if hash(example.prompt[:5]) % 4 else swapped

    (fault, *_) = examine(small(Noisy)).faults
    assert "and solve() says" in fault


def test_without_solve_a_corrupted_prompt_is_compared_with_the_prompts_of_the_task():
    class Unsolved(Majority):
        def solve(self, prompt):
            return None

    found = examine(small(Unsolved))
    assert found.faults == ()
    assert found.verified > 1000  # mirrored: each corrupted prompt is a prompt
    assert examine(small(type("Lonely", (Unsolved,), {"mirrored": False}))).verified < 100


def test_a_task_that_depends_on_more_than_its_generator_is_found():
    class Counting(Majority):
        numbers = count()

        def sample(self, rng):
            return super().sample(random.Random(next(self.numbers)))

    assert any("for the same generator" in fault for fault in examine(small(Counting)).faults)


def test_an_exemption_from_an_unknown_check_and_a_solve_that_raises_are_named():
    class Misspelt(Majority):
        by_definition: ClassVar = {"bag of letters": "…"}

    faults = examine(small(Misspelt)).faults
    assert any(
        fault.startswith("by_definition names 'bag of letters', which is no check: majority") for fault in faults
    )

    class Raising(Majority):
        def solve(self, prompt):
            raise ValueError("no luck")

    with pytest.raises(SparselitError, match=r"Raising\.solve\(\) raised ValueError: no luck"):
        examine(small(Raising))


# ---- the simple rules


class Rule(Task):
    """Prompts of four letters; the answer is what ``rule`` says."""

    vocabulary = "abc="
    max_length = 7

    def __init__(self, rule, **kwargs):
        self.rule = rule
        super().__init__(report=400, pool=400)

    def sample(self, rng):
        text = "".join(rng.choices("abc", k=rng.randint(4, 6))) + "="
        answer = self.rule(text)
        return Example(text, answer, "b" if answer == "a" else "a")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("majority", lambda text: "a"),
        ("fixed position", lambda text: text[1]),
        ("fixed position", lambda text: text[-2]),
        ("bag of characters", lambda text: "ab"[text.count("c") % 2]),
    ],
)
def test_each_rule_solves_what_it_describes_and_random_answers_solve_none(name, rule):
    task = Rule(rule)
    assert baseline_accuracies(task.split("train"), task.split("report"), task.vocab_size)[name] > 0.99
    draws = random.Random(0)
    answers = {}
    task = Rule(lambda text: answers.setdefault(text, draws.choice("ab")))
    found = baseline_accuracies(task.split("train"), task.split("report"), task.vocab_size)
    assert all(accuracy < 0.65 for accuracy in found.values())


def test_the_last_token_rule_reads_the_end_of_prompts_of_any_length():
    class Ends(Rule):
        def sample(self, rng):
            example = super().sample(rng)
            return example._replace(prompt=example.prompt[:-1], answer=example.prompt[-2], wrong="=")

    task = Ends(lambda text: "a")
    assert baseline_accuracies(task.split("train"), task.split("report"), task.vocab_size)["last token"] == 1.0


def test_an_answer_that_is_the_absent_candidate_is_visible_too():
    class Absent(Rule):
        def sample(self, rng):
            letter, other = rng.sample("ab", 2)
            return Example("".join(rng.choices([letter, "c"], k=5)) + letter, other, letter)

    assert visible_accuracy(Absent(None).split("report")) == 1.0
    assert visible_accuracy(Rule(lambda text: text[0]).split("report")) < 0.75
