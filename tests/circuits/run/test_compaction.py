"""The compacted model equals the naive masked forward: every ablation, norm and kind of positions, AbsTopK, sinks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.circuits.criterion import Bound
from sparselit.circuits.run.ablation import Ablation
from sparselit.circuits.run.fast import FastEngine
from sparselit.circuits.run.masked import masked_logits
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.run.patch import Patch, patched
from sparselit.circuits.search.problem import Problem
from tests.circuits.models import configs, random_channels, random_subset, randomised, seeds, some_examples

ABLATIONS = [
    Ablation("zero"),
    Ablation("zero", norm="frozen"),
    Ablation("mean"),
    Ablation("mean", norm="frozen"),
    Ablation("mean", per="position"),
    Ablation("mean", per="token"),
    Ablation("resample"),
    Ablation("resample", norm="frozen"),
]
NORMS = ("rms", "layer", "none")
POSITIONS = ("learned", "sinusoidal", "learned_concatenated", "sinusoidal_concatenated", "none")
#: Where AbsTopK stands: nowhere, at the paper's sites, at some, at the residual stream itself.
TOP_K: dict[str, Any] = {
    "nowhere": None,
    "everywhere": 0.5,
    "neurons": {"*.mlp.act": 0.4},
    "writing": {"*.attn.out": 0.4, "*.mlp.out": 0.7, "embed": 0.7},
    "reading": {"*.in": 0.5},
    "stream": {"*.residual": 0.5, "embed": 0.6},
    "heads": {"*.attn.[qk]": 0.5, "*.attn.v": 0.4},
    "read heads": {"*.attn.z": 0.5},
}


def same(engine: FastEngine, seed: int) -> None:
    """Sets of edges on compacted models, with and without ``at``, against the naive engine."""
    examples = engine.examples
    assert examples is not None
    living = random_channels(engine.edges, 0.6, seed)
    for focused in (living, random_subset(engine.everything(), 0.2, seed)):
        engine.compacted = engine._compact(focused)
        for kept, at in ((focused, None), (random_subset(focused, 0.6, seed + 1), examples.length - 1)):
            one, other = (e.run(kept, examples.tokens, at, examples.corrupted) for e in (engine, engine.naive))
            assert (one - other).abs().max() < 1e-9


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
@pytest.mark.parametrize("top_k", TOP_K)
@pytest.mark.parametrize("norm", NORMS)
def test_a_compacted_model_equals_the_naive_forward_for_every_ablation_norm_and_abs_top_k(
    norm: str, top_k: str, ablation: Ablation
) -> None:
    first = NORMS.index(norm) + list(TOP_K).index(top_k)
    for seed in (first, first + 2):  # over all kinds of AbsTopK every kind of positions comes up
        positions = POSITIONS[seed % len(POSITIONS)]
        config = {"norm": norm, "positions": positions, "activation_density": TOP_K[top_k], "n_layers": 2}
        config |= {"sink": seed % 2 == 0, "tied": seed % 3 == 0, "bigram": seed % 2 == 1, "d_position": 4}
        config |= {"activation": ("gelu", "relu")[seed % 2], "residual_activation": ("identity", "relu")[seed % 4 == 3]}
        model, examples = randomised(seed, 0.7, d_model=8, d_mlp=9, **config).double(), some_examples(12, seed)
        engine = FastEngine.of(model, ablation, {"discovery": examples})
        engine.examples = examples
        same(engine, seed)


@settings(max_examples=40, deadline=None)
@given(configs, st.sampled_from(ABLATIONS), st.sampled_from([1.0, 0.4]), seeds)
def test_whatever_the_model_a_compacted_one_equals_the_naive_forward(
    config: dict[str, Any], ablation: Ablation, density: float, seed: int
) -> None:
    model, examples = randomised(seed, density, d_position=5, **config).double(), some_examples(seed=seed)
    engine = FastEngine.of(model, ablation, {"discovery": examples})
    engine.examples = examples
    same(engine, seed)


@settings(max_examples=20, deadline=None)
@given(configs, st.sampled_from(ABLATIONS), seeds)
def test_what_is_known_of_a_portion_is_handed_on_to_smaller_models(
    config: dict[str, Any], ablation: Ablation, seed: int
) -> None:
    """One announced set after the other, each a subset; under resample the full model runs once for all of them."""
    model, examples = randomised(seed, **config).double(), some_examples(seed=seed)
    problem = Problem(NaiveEngine.of(model, ablation, {"discovery": examples}), examples, [Bound("kl", at_most=9.0)])
    focused = random_channels(problem.edges, 0.8, seed)
    whole, naive = slice(0, len(examples.answer)), problem.engine.naive
    for step in range(4):
        problem.focus(focused)
        for kept in (focused, random_subset(focused, 0.7, seed), *(random_subset(focused, 0.9, i) for i in range(3))):
            found = problem.engine.portions(kept, lambda: None)(whole)
            assert (found - naive.logits(kept, examples)).abs().max() < 1e-9
        focused = random_subset(focused, 0.5, seed + step)


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_gradients_of_a_compacted_model_are_those_of_the_full_one(ablation: Ablation) -> None:
    model, examples = randomised(3, 0.6, n_layers=2, sink=True, positions="learned").double(), some_examples()
    engine = FastEngine.of(model, ablation, {"discovery": examples})
    living = random_channels(engine.edges, 0.7, 3)
    shares = torch.rand(len(living), generator=torch.Generator().manual_seed(0)).double()
    gradients = []
    for compacted in (None, engine._compact(living)):
        engine.compacted = compacted
        opened = shares.clone().requires_grad_()
        logits = engine.soft_logits(opened * living, examples)
        gradients.append(torch.autograd.grad(logits.square().sum(), opened)[0])
    assert torch.allclose(*gradients, atol=1e-9)
    assert gradients[0].abs().max() > 1e-3


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_concatenated_positions_of_any_width_can_be_ablated(ablation: Ablation) -> None:
    """Their width once was taken for the length of the prompts."""
    for positions in ("learned_concatenated", "sinusoidal_concatenated"):
        model, examples = randomised(positions=positions, d_position=4, n_layers=2), some_examples()
        engine, at = NaiveEngine.of(model, ablation, {"discovery": examples}), examples.length - 1
        first_layer = torch.tensor([name.startswith("layers.0.") for name in engine.edges.names])[engine.edges.matrix]
        kept = ~first_layer | random_subset(first_layer, 0.5, 0)
        answers = engine.run(kept, examples.tokens, at, examples.corrupted)
        everywhere = engine.run(kept, examples.tokens, None, examples.corrupted)
        assert torch.allclose(answers, everywhere[torch.arange(len(at)), at], atol=1e-5)
        assert not torch.allclose(answers, engine.run(engine.everything(), examples.tokens, at, examples.corrupted))


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_the_compacted_model_is_as_small_as_its_edges_and_the_full_one_untouched(ablation: Ablation) -> None:
    model, examples = randomised(n_layers=2, d_model=64, d_mlp=128, positions="none"), some_examples()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    engine = FastEngine.of(model, ablation, {"discovery": examples})
    state = torch.random.get_rng_state()
    kept = torch.zeros(len(engine.edges), dtype=torch.bool)
    kept[torch.randperm(len(kept), generator=torch.Generator().manual_seed(0))[:10]] = True
    engine.focus(kept)
    assert torch.equal(torch.random.get_rng_state(), state)
    small = engine.compacted
    assert small is not None
    assert small.channels.whole == ()
    assert sum(p.numel() for p in small.model.parameters()) < sum(p.numel() for p in model.parameters()) / 10
    engine.logits(kept, examples)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(site.attached for site in small.model.sites.values())


def test_where_abs_top_k_needs_all_channels_the_compacted_model_says_so() -> None:
    model, examples = randomised(n_layers=1, activation_density=0.5), some_examples()
    for ablation, whole in (
        (Ablation("zero"), ()),
        (Ablation("mean"), ()),
        (Ablation("resample"), ("residual", "layers.0.attn", "layers.0.mlp.act")),
    ):
        engine = FastEngine.of(model, ablation, {"discovery": examples})
        assert engine._compact(random_subset(engine.everything(), 0.3, 0)).channels.whole == whole


def test_a_node_that_nothing_reads_can_be_patched() -> None:
    """Neurons and heads that nothing reads are left out of a run, unless an edit counts their channels."""
    model, examples = randomised(1), some_examples()
    engine = NaiveEngine.of(model)
    masks = engine.masks(engine.everything())
    masks["layers.0.mlp.down.weight"][:, 1:] = False
    masks["layers.0.attn.o.weight"][:] = False
    known = engine.context(examples)
    for site, channel in (("layers.0.mlp.act", 3), ("layers.0.attn.v", 5)):
        patch = patched(Patch([channel], torch.ones(len(examples.answer), 1, 1)))
        with model.sites.edited(after={site: patch}):
            ran = [masked_logits(model, masks, known, within=within) for within in (None, masks)]
        assert torch.allclose(*ran, atol=1e-5)
