"""Prompts that look the same to a set of edges are run once, and nothing changes by that."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparselit.circuits.run.ablation import Ablation
from sparselit.circuits.run.distinct import Distinct, InOrder, distinct
from sparselit.circuits.run.fast import FastEngine
from sparselit.data.examples import Examples
from tests.circuits.models import VOCABULARY, configs, random_subset, randomised, seeds, some_examples

#: Those of which a removed edge does not depend on the prompt.
CONSTANT = [Ablation("zero"), Ablation("mean"), Ablation("mean", per="position")]
OTHERS = [Ablation("resample"), Ablation("mean", norm="frozen"), Ablation("mean", per="token")]


def of_few_tokens(engine: FastEngine, read: int, seed: int) -> Tensor:
    """Random edges, of which only those of the first tokens are embedding edges."""
    kept = random_subset(engine.everything(), 0.7, seed)
    for name, here in zip(engine.edges.names, engine.edges.members, strict=True):
        if name == "embed.token.weight":
            kept[here] &= engine.edges.row[here] < read
    return kept


@settings(max_examples=40, deadline=None)
@given(configs, st.sampled_from([*CONSTANT, *OTHERS]), st.integers(0, VOCABULARY), seeds)
def test_logits_of_all_prompts_are_those_of_the_naive_forward(
    config: dict[str, Any], ablation: Ablation, read: int, seed: int
) -> None:
    model, examples = randomised(seed, **config).double(), some_examples(40, seed)
    engine = FastEngine.of(model, ablation, {"discovery": examples}).on(examples)
    kept = of_few_tokens(engine, read, seed)
    expected = engine.naive.logits(kept, examples)
    engine.compacted = engine._compact(kept)
    assert (engine.logits(kept, examples) - expected).abs().max() < 1e-9
    for smaller in (kept, *(random_subset(kept, 0.9, i) for i in range(3))):  # the last ones begin higher up
        expected, logits_of = engine.naive.logits(smaller, examples), engine.portions(smaller, lambda: None)
        for portion in (slice(0, 8), slice(8, 40)):
            assert (logits_of(portion) - expected[portion]).abs().max() < 1e-9


@pytest.mark.parametrize("ablation", [*CONSTANT, *OTHERS], ids=str)
def test_a_circuit_that_reads_one_token_runs_a_prompt_for_each_pattern_of_it(ablation: Ablation) -> None:
    model, examples = randomised(bigram=False, positions="none").double(), some_examples(200)
    engine = FastEngine.of(model, ablation, {"discovery": examples}).on(examples)
    kept, runs = of_few_tokens(engine, 1, 0), []
    engine.compacted = engine._compact(kept)
    with model.sites.edited(), engine.compacted.model.sites.edited(after={"embed": lambda x: runs.append(len(x)) or x}):
        engine.logits(kept, examples)
    tokens, last = examples.tokens, examples.length - 1
    seen = {tuple(row[: end + 1]) for row, end in zip((tokens == 0).tolist(), last.tolist(), strict=True)}
    assert len(seen) < 100
    assert runs == ([len(seen)] if ablation in CONSTANT else [len(last)])


def test_each_kind_is_run_once_over_all_portions() -> None:
    model, examples = randomised(bigram=True, positions="none"), some_examples(200)
    engine = FastEngine.of(model, "zero", {"discovery": examples})
    small = engine._compact(of_few_tokens(engine, 1, 0))
    kinds = distinct(examples.tokens, examples.length - 1, small.edges)
    asked: list[slice] = []

    def run(part: slice) -> Tensor:
        asked.append(part)
        return torch.arange(part.start, part.stop)[:, None].double()

    logits_of = InOrder(kinds, run)
    found = torch.cat([logits_of(slice(i, i + 50)) for i in range(0, 200, 50)])
    assert kinds.back is not None
    assert torch.equal(found[:, 0].long(), kinds.back)
    assert sorted(n for part in asked for n in range(part.start, part.stop)) == list(range(len(kinds.at)))
    repeated = examples.tokens.gather(1, examples.length[:, None] - 1)[:, 0]  # the bigram table reads the last token
    assert torch.equal(kinds.tokens.gather(1, kinds.at[:, None])[kinds.back, 0], repeated)


def test_prompts_that_all_differ_are_run_as_they_are() -> None:
    model, examples = randomised(), some_examples(20)
    engine = FastEngine.of(model, "zero", {"discovery": examples})
    kinds = distinct(examples.tokens, examples.length - 1, engine._compact(engine.everything()).edges)
    assert kinds.back is None
    assert torch.equal(kinds.tokens, examples.tokens[:, : int(examples.length.max())])


def test_an_empty_split_has_no_kinds() -> None:
    model = randomised()
    none = Examples(*(part[:0] for part in some_examples()))
    engine = FastEngine.of(model, "zero", {"discovery": none})
    assert isinstance(distinct(none.tokens, none.length - 1, engine.edges), Distinct)
