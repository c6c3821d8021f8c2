"""Which token sequences count as prompts of a task, and what the task's rule says of them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

from sparselit.circuits.use.prompts import Domain, encoded, neighbours, stacked
from sparselit.errors import SparselitError
from tests.circuits.models import seeds, some_behaviour

BEHAVIOUR = some_behaviour()


def test_every_known_prompt_belongs_to_the_domain_and_an_unseen_pair_does_not() -> None:
    domain = Domain.of(BEHAVIOUR)
    for split in BEHAVIOUR.splits.values():
        assert bool(domain.looks_valid(split.tokens, split.length).all())
    tokens, length = stacked([[0, 1], [2, 3]])
    unseen = domain.pairs.clone()
    unseen[2, 3] = False
    less = Domain(domain.vocabulary, domain.first, domain.last, unseen, domain.answers, 1, 6, None)
    assert less.looks_valid(tokens, length).tolist() == [True, False]


def test_lengths_and_ends_that_no_prompt_has_are_no_prompts() -> None:
    domain = Domain.of(BEHAVIOUR)
    ends = torch.zeros(5, dtype=torch.bool)
    narrow = Domain(domain.vocabulary, domain.first, ends, domain.pairs, domain.answers, 2, 3, None)
    assert not bool(narrow.looks_valid(*stacked([[0, 1]])).any())
    assert domain.looks_valid(*stacked([[0] * 6])).tolist() == [bool(domain.pairs[0, 0])]


def test_a_rule_that_fails_or_answers_with_no_token_has_no_answer() -> None:
    def solve(text: str) -> str | None:
        return {"ab": "c", "ba": "nonsense"}[text]

    domain = Domain.of(BEHAVIOUR, solve)
    tokens, length = stacked([[0, 1], [1, 0], [0, 0]])
    assert domain.right_answers(tokens, length).tolist() == [2, -1, -1]


def test_the_mark_of_a_mixture_is_no_part_of_the_prompt() -> None:
    domain = Domain(("<A>", "a", "b"), *[torch.ones(3, dtype=torch.bool)] * 2, torch.ones(3, 3, dtype=torch.bool),
                    torch.ones(3, dtype=torch.bool), 1, 3, {"a": "b"}.get)  # fmt: skip
    assert domain.right_answers(*stacked([[0, 1]])).tolist() == [2]


@given(seeds)
def test_neighbours_are_all_sequences_at_distance_one(seed: int) -> None:
    tokens = torch.randint(4, (3,), generator=torch.Generator().manual_seed(seed)).tolist()
    every = [[a, b, c] for a in range(4) for b in range(4) for c in range(4)]
    near = [row for row in every if sum(x != y for x, y in zip(row, tokens, strict=True)) == 1]
    assert sorted(neighbours(tokens, range(4))) == near


@pytest.mark.parametrize("text", ["", "abcdeab", "axb"])
def test_what_is_no_prompt_is_refused_by_name(text: str) -> None:
    with pytest.raises(SparselitError, match="prompt"):
        encoded([text], BEHAVIOUR.vocabulary, 6)
