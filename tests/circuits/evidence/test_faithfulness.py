"""Faithfulness beyond the output, each comparison against a slow reference written here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sparselit.circuits.claims import Attended, HeldOut, Opened, OtherNorm, Unexplained, extended
from sparselit.circuits.criterion import Bound, measure
from sparselit.circuits.evidence.faithfulness import (
    HALVES,
    activations,
    attention,
    faithfulness,
    fraction_unexplained,
    interchange,
    other_norm,
    random_halves,
    relaxation,
)
from sparselit.circuits.evidence.flags import FLAGS, flags
from sparselit.circuits.run.ablation import Ablation
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.subnetwork import Observed, Subnetwork
from tests.circuits.models import random_subset, randomised, some_examples
from tests.circuits.records import some_adversary, some_evidence, some_score, some_searched_null

CRITERION = [Bound("task_loss", at_most=1.5), Bound("accuracy", at_least=0.3)]
ABLATIONS = [Ablation(), Ablation("mean"), Ablation("resample"), Ablation(norm="frozen")]


def subject(ablation: Ablation = ABLATIONS[0], share: float = 0.7, **config: Any) -> Observed:
    model = randomised(seed=3, **({"n_layers": 2, "sink": True} | config))
    examples = some_examples(12, seed=4)
    engine = NaiveEngine.of(model, ablation, {"discovery": examples})
    return Subnetwork(engine, random_subset(engine.everything(), share, seed=5)).on(examples)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_whole_model_is_faithful_to_itself(ablation: Ablation) -> None:
    one = subject(ablation).whole
    assert all(row == Unexplained(unexplained=0.0, rescaled=0.0) for row in activations(one).values())
    assert all(row == Attended(total_variation=0.0, total_variation_max=0.0) for row in attention(one).values())
    full = measure(one.full, one.examples, one.full)
    both = interchange(one, CRITERION)
    for row in (both.into_full, both.into_circuit):
        assert row.worst_loss == pytest.approx(full["task_loss"], abs=2e-6)
        assert {values.kl for values in row.sites.values()} == {0.0}
    for row in (random_halves(one, CRITERION), relaxation(one, CRITERION)):
        assert row.worst_loss == pytest.approx(full["task_loss"], abs=2e-6)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_activations_are_compared_over_the_circuits_channels_and_real_positions_only(ablation: Ablation) -> None:
    one = subject(ablation)
    some = one.examples
    mine, theirs = (run.recorded(list(one.nodes)) for run in (one, one.whole))
    found = activations(one)
    assert {"embed", "layers.1.attn.q", "unembed.in"} <= set(found)
    for site, row in found.items():
        pairs = []
        for i, length in enumerate(some.length.tolist()):
            places = range(mine[site].shape[1]) if mine[site].shape[1] == 1 else range(length)
            pairs += [(mine[site][i, p, one.nodes[site]], theirs[site][i, p, one.nodes[site]]) for p in places]
        x, y = (np.array([pair[k].tolist() for pair in pairs]) for k in (0, 1))
        assert row.unexplained == pytest.approx(((x - y) ** 2).sum() / (len(y) * y.var(0)).sum(), abs=1e-4, rel=1e-4)
        left = 0.0
        for a, b in zip(x.T, y.T, strict=True):
            fit = np.polyval(np.polyfit(a, b, 1), a) if a.std() > 1e-6 else np.full_like(b, b.mean())
            left += float(((b - fit) ** 2).sum())
        assert row.rescaled == pytest.approx(left / (len(y) * y.var(0)).sum(), abs=1e-4)


def test_a_channel_that_never_varies_has_no_unexplained_share() -> None:
    assert fraction_unexplained(torch.rand(5, 2), torch.ones(5, 2)) is None


@pytest.mark.parametrize("sink", [False, True])
def test_attention_is_compared_head_by_head_the_sink_included(sink: bool) -> None:
    one = subject(sink=sink)
    found = attention(one)
    assert set(found) == {f"layers.{i}.attn[{h}]" for i in (0, 1) for h in (0, 1)}
    sites = ["layers.0.attn.pattern", "layers.1.attn.pattern"]
    mine, theirs = (run.recorded(sites) for run in (one, one.whole))
    for name, row in found.items():
        site, head = f"{name[:-3]}.pattern", int(name[-2])
        every: list[list[float]] = []
        for i, length in enumerate(one.examples.length.tolist()):
            queries = range(length) if mine[site].shape[2] > 1 else range(1)
            every.append([])
            for query in queries:
                p, q = (np.array(r[site][i, head, query].tolist()) for r in (mine, theirs))
                p, q = np.append(p, 1 - p.sum()), np.append(q, 1 - q.sum())
                every[-1].append(float(np.abs(p - q).sum() / 2))
        assert row.total_variation == pytest.approx(np.mean([each for prompt in every for each in prompt]), abs=1e-5)
        assert row.total_variation_max == pytest.approx(max(map(np.mean, every)), abs=1e-5)


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_interchange_moves_the_circuits_channels_of_one_site_between_the_runs(ablation: Ablation) -> None:
    one = subject(ablation)
    found = interchange(one, CRITERION)
    site = "layers.0.mlp.out"
    channels = one.nodes[site]

    def patched(host: Observed, guest: Observed) -> float:
        with one.network.model.sites.recorded([site]) as taken:
            guest.logits()
        value = taken[site].clone()

        def edit(x: Tensor) -> Tensor:
            return torch.stack([value[..., c] if c in channels else x[..., c] for c in range(x.shape[-1])], -1)

        with one.network.model.sites.edited(after={site: edit}):
            return measure(host.logits(), one.examples)["task_loss"]

    into_full, into_circuit = patched(one.whole, one), patched(one, one.whole)
    assert found.into_full.sites[site].task_loss == pytest.approx(into_full, abs=2e-6)
    assert found.into_circuit.sites[site].task_loss == pytest.approx(into_circuit, abs=2e-6)
    for row in (found.into_full, found.into_circuit):
        losses = [values.task_loss for values in row.sites.values()]
        assert row.worst_loss == max(losses)
        assert row.runs == len(losses) == len(one.nodes)


def test_random_halves_keep_the_circuit_and_about_half_of_the_rest() -> None:
    one = subject(share=0.2)
    asked: list[Tensor] = []

    class Spy(Observed):
        def keeping(self, kept: Tensor) -> Observed:
            asked.append(kept)
            return super().keeping(kept)

    row = random_halves(Spy(one.network, one.examples, one.known), CRITERION)
    halves = [kept for kept in asked if not bool(kept.all())]
    assert row.runs == len(halves) == HALVES
    assert all(bool(kept[one.kept].all()) for kept in halves)
    share = torch.stack(halves)[:, ~one.kept].float().mean()
    assert 0.45 < float(share) < 0.55
    assert len({tuple(kept.tolist()) for kept in halves}) == HALVES
    losses = [measure(one.keeping(kept).logits(), one.examples)["task_loss"] for kept in halves]
    assert row.worst_loss == pytest.approx(max(losses), abs=2e-6)


def test_relaxation_goes_from_the_circuit_to_the_full_model() -> None:
    one = subject()
    row = relaxation(one, CRITERION)
    ends = [measure(run.logits(), one.examples)["task_loss"] for run in (one, one.whole)]
    assert [row.task_loss[0], row.task_loss[-1]] == pytest.approx(ends, abs=2e-6)
    assert row.worst_loss == max(row.task_loss)
    assert row.worst_accuracy == min(row.accuracy)


@pytest.mark.parametrize(("own", "other"), [("live", "frozen"), ("frozen", "live")])
def test_the_other_norm_is_the_same_circuit_under_the_other_norm(own: Any, other: Any) -> None:
    one = subject(Ablation(norm=own))
    row = other_norm(one)
    assert row is not None
    assert row.norm == other
    logits = NaiveEngine.of(one.network.model, Ablation(norm=other)).logits(one.kept, one.examples)
    assert row.task_loss == pytest.approx(measure(logits, one.examples)["task_loss"], abs=2e-6)
    assert other_norm(subject(norm="none")) is None


def test_an_empty_circuit_can_be_compared_too() -> None:
    one = subject(share=0.0)
    row = faithfulness(one, CRITERION)
    assert row.activations == row.attention == {}
    assert row.interchange.into_full.runs == 1


def test_every_flag_has_its_sentence_and_its_place() -> None:
    one, bad = some_evidence(), some_score(task_loss=2.0, accuracy=1.0)
    assert one.faithfulness is not None
    failing = {"runs": 2, "meet_criterion": 1}
    ways = one.faithfulness.interchange
    inside = replace(
        one.faithfulness,
        activations={
            "embed": Unexplained(unexplained=0.9, rescaled=0.6),
            "unembed.in": Unexplained(unexplained=None, rescaled=None),
        },
        attention={"layers.0.attn[0]": Attended(total_variation=0.6, total_variation_max=0.6)},
        interchange=replace(
            ways, into_full=replace(ways.into_full, **failing), into_circuit=replace(ways.into_circuit, **failing)
        ),
        random_halves=replace(one.faithfulness.random_halves, **failing),
        relaxation=replace(one.faithfulness.relaxation, **failing),
        other_norm=extended(OtherNorm, bad, norm="frozen"),
    )
    drawn = replace(one.nulls.random_circuits, meet_criterion=1)
    met = replace(one.nulls.shuffled_answers, meets_criterion=True)
    nulls = replace(
        one.nulls,
        random_circuits=drawn,
        magnitude_matched=drawn,
        shuffled_answers=met,
        untrained_model=met,
        searched={
            "nonsense_target": some_searched_null(edges=50),
            "untrained_model": some_searched_null(edges=None),
            "constant_target": some_searched_null(edges=1),
        },
    )
    held_out = extended(HeldOut, bad, split="report", strata={})
    evidence = replace(one, full_model=bad, held_out=held_out, faithfulness=inside, nulls=nulls)
    evidence = replace(evidence, adversary=some_adversary(gradient=extended(Opened, bad, edges=())))
    assert flags(evidence, CRITERION, edges=6) == tuple(FLAGS)
    assert "searched_nulls" not in flags(evidence, CRITERION, edges=5)
    assert flags(one, CRITERION, edges=6) == ()
