"""The model edge by edge equals the naive masked forward: kinds of ablation, norms, positions, shares, patches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sparselit.circuits.run import by_edge
from sparselit.circuits.run.ablation import Ablation
from sparselit.circuits.run.blocks import residual_sites
from sparselit.circuits.run.by_edge import EdgeModel, worth_it
from sparselit.circuits.run.fast import FastEngine
from sparselit.circuits.run.patch import taken
from tests.circuits.models import random_subset, randomised, some_examples

ABLATIONS = [
    Ablation("zero"),
    Ablation("zero", norm="frozen"),
    Ablation("mean"),
    Ablation("mean", norm="frozen"),
    Ablation("mean", per="position"),
    Ablation("mean", per="token"),
]
POSITIONS = ("learned", "sinusoidal", "learned_concatenated", "sinusoidal_concatenated", "none")


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that twelve prompts are several portions."""
    monkeypatch.setattr(by_edge, "POSITIONS", 20)


def engine_of(ablation: Ablation, seed: int = 0, **config: Any) -> FastEngine:
    config = {"n_layers": 2, "d_model": 8, "d_mlp": 9, "sink": seed % 2 == 0, "bigram": seed % 2 == 1} | config
    model, examples = randomised(seed, 0.6, **config).double(), some_examples(12, seed)
    engine = FastEngine.of(model, ablation, {"discovery": examples})
    engine.examples = examples
    engine.by_edge = EdgeModel(model, engine.edges, engine.replacement)
    return engine


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
@pytest.mark.parametrize("norm", ["rms", "layer", "none"])
@pytest.mark.parametrize("positions", POSITIONS)
def test_any_set_of_edges_any_share_and_any_record_is_that_of_the_naive_path(
    positions: Any, norm: Any, ablation: Ablation
) -> None:
    for seed in range(2):
        config = {"bias": seed == 0, "tied": seed == 1, "activation": ("gelu", "relu")[seed], "d_position": 4}
        engine = engine_of(ablation, seed, positions=positions, norm=norm, **config)
        known = engine.context(engine.examples)
        everything = engine.everything()
        sets = [everything, ~everything, random_subset(everything, 0.5, seed), random_subset(everything, 0.9, seed)]
        generator = torch.Generator().manual_seed(seed)
        sets.append(torch.rand(len(everything), generator=generator).double() * random_subset(everything, 0.8, seed))
        for kept in sets:
            record = list(engine.model.sites)
            fast, naive = engine.by_edge.run(kept, known, record=record), engine.naive.observe(kept, known, record)
            assert (fast.logits - naive.logits).abs().max() < 1e-9
            assert fast.records.keys() == naive.records.keys()
            assert all((x - naive.records[site]).abs().max() < 1e-9 for site, x in fast.records.items())


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_patches_and_what_is_resumed_are_those_of_the_naive_path(ablation: Ablation) -> None:
    engine = engine_of(ablation)
    known, kept = engine.context(engine.examples), random_subset(engine.everything(), 0.7, 1)
    streams = residual_sites(2)
    sites = ["layers.1.attn.v", "layers.1.mlp.act", "layers.1.mlp.out", "unembed.in"]
    other = engine.naive.observe(engine.everything(), known, sites).records
    mine = engine.by_edge.run(kept, known, record=streams).records
    for site in sites:
        patches = {site: taken(other[site], [0, 3, 5])}
        whole = engine.naive.observe(kept, known, patches=patches).logits
        for done in (0, 1, 2):
            resume = (done, mine[streams[done - 1]]) if done else None
            assert (engine.by_edge.run(kept, known, resume, patches=patches).logits - whole).abs().max() < 1e-9


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_an_engine_gives_the_same_by_whichever_way_it_goes(ablation: Ablation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions, streams from the first block that differs, whole answers, and observed ones."""
    monkeypatch.setattr("sparselit.circuits.run.fast.WORTH_COMPACTING", 10**9)
    engine = engine_of(ablation)
    examples, everything = engine.examples, engine.everything()
    assert (engine.full(examples) - engine.naive.logits(everything, examples)).abs().max() < 1e-9
    assert engine.full(examples) is engine.full(examples)
    engine.compacted = None
    engine.streams = None
    engine._streams_fit = lambda: True  # type: ignore[method-assign]
    engine.focus(everything) if ablation.kind != "zero" else None
    last = torch.tensor([name.startswith("layers.1.mlp") for name in engine.edges.names])[engine.edges.matrix]
    for seed in range(5):
        kept = everything & ~random_subset(last, 0.5, seed)
        expected = engine.naive.logits(kept, examples)
        logits_of = engine.portions(kept, lambda: None)
        found = torch.cat([logits_of(slice(0, 5)), logits_of(slice(5, 12))])
        assert (found - expected).abs().max() < 1e-9
        assert (engine.logits(kept, examples) - expected).abs().max() < 1e-9
        assert (engine.observe(kept, engine.context(examples)).logits - expected).abs().max() < 1e-9


def test_it_is_worth_it_for_large_sparse_models_without_activation_sparsity() -> None:
    def worth(kind: str = "mean", entries: int = 1, density: float = 0.02, **config: Any) -> bool:
        model = randomised(0, density, n_layers=1, d_model=128, d_mlp=512, n_heads=4, **config)
        engine = FastEngine.of(model, kind, {"discovery": some_examples(4)})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(by_edge, "SMALLEST", entries)
            return worth_it(model, engine.edges, engine.replacement)

    assert worth()
    assert not worth(entries=2**20)
    assert not worth(density=0.2)
    assert not worth("resample")
    assert not worth(activation_density=0.5)
