"""What a removed edge contributes, against replacements made by hand; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sparselit.circuits import Ablation, Behaviour, Bound, discover
from sparselit.circuits.criterion import measure
from sparselit.circuits.files import write_circuit
from sparselit.circuits.run.ablation import as_ablation, prepare
from sparselit.circuits.search import GroupTesting
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.verify import verify
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.report.summary import circuit_facts
from sparselit.training.run_result import found_circuit
from tests.circuits.models import LENGTH, VOCABULARY, random_subset, randomised, some_behaviour, some_examples

CRITERION = [Bound("task_loss", at_most=10.0)]
ABLATIONS: list[Any] = [
    "zero",
    "mean",
    "resample",
    {"kind": "mean", "per": "token"},
    {"kind": "mean", "per": "position"},
    {"kind": "zero", "norm": "frozen"},
    {"kind": "mean", "norm": "frozen"},
    {"kind": "resample", "norm": "frozen"},
]


def stand_in(x: Tensor, other: Tensor, examples: Examples, kind: str, per: str | None) -> Tensor:
    """What stands in for a source (prompt, position, channel): written out prompt by prompt."""
    if kind == "zero":
        return torch.zeros_like(x)
    if kind == "resample":
        return other
    real = [(i, p) for i, n in enumerate(examples.length.tolist()) for p in range(n)]
    result = torch.zeros_like(x)
    for i in range(len(x)):
        for p in range(LENGTH):
            same = {
                "all": real,
                "token": [(j, q) for j, q in real if examples.tokens[j, q] == examples.tokens[i, p]],
                "position": [(j, q) for j, q in real if q == p],
            }[per or "all"]
            result[i, p] = torch.stack([x[j, q] for j, q in same or real]).mean(0)
    return result


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_a_removed_edge_contributes_its_stand_in(ablation: Any) -> None:
    """Edges from the first layer's neurons: the layer's output by hand, the rest of the model as it is."""
    model = randomised(n_layers=2, norm="none").double()
    examples = some_examples(20)
    problem = Problem.of(model, examples, CRITERION, ablation)
    here = torch.tensor([name == "layers.0.mlp.down.weight" for name in problem.edges.names])[problem.edges.matrix]
    kept = ~random_subset(here, 0.5, 1)
    with torch.no_grad():
        with model.sites.recorded(["layers.0.mlp.act"]) as other:
            model(examples.corrupted)
        with model.sites.recorded(["layers.0.mlp.act"]) as record:
            model(examples.tokens)
        x, corrupted = record["layers.0.mlp.act"], other["layers.0.mlp.act"]
        asked = as_ablation(ablation)
        replaced = stand_in(x, corrupted, examples, asked.kind, asked.per)
        removed = (
            model.get_parameter("layers.0.mlp.down.weight") * ~problem.edges.masks(kept)["layers.0.mlp.down.weight"]
        )
        change = (replaced - x) @ removed.T
        with model.sites.edited(after={"layers.0.mlp.out": lambda y: y + change}):
            expected = model(examples.tokens, examples.length - 1)
    assert torch.allclose(problem.logits(kept, examples), expected, atol=1e-9)
    assert torch.allclose(problem.naive_logits(kept, examples), expected, atol=1e-9)
    assert (expected - model(examples.tokens, examples.length - 1)).abs().max() > 1e-3


def test_a_frozen_norm_keeps_the_scale_of_the_full_model() -> None:
    model, examples = randomised(n_layers=0, norm="rms", positions="none", bias=False).double(), some_examples()
    problem = Problem.of(model, examples, CRITERION, Ablation("zero", norm="frozen"))
    kept = random_subset(problem.all_edges(), 0.5, 0)
    masks = problem.edges.masks(kept)
    answer = examples.tokens.gather(1, examples.length[:, None] - 1)[:, 0]
    embed, unembed = model.embed.token.weight, model.unembed.weight
    with torch.no_grad():
        scale = (embed[answer].square().mean(-1, keepdim=True) + model.norm_eps).rsqrt()
        x = (embed * masks["embed.token.weight"])[answer] * scale * model.norm.weight
        expected = x @ (unembed * masks["unembed.weight"]).T
        assert torch.allclose(problem.logits(kept, examples), expected, atol=1e-9)
        live = Problem.of(model, examples, CRITERION).logits(kept, examples)
    assert (live - expected).abs().max() > 1e-3


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_all_edges_kept_is_the_model_bit_for_bit_under_every_ablation(ablation: Any) -> None:
    model, examples = randomised(n_layers=2, sink=True, bigram=True, activation_density=0.5), some_examples()
    problem = Problem.of(model, examples, CRITERION, ablation)
    with torch.no_grad():
        expected = model(examples.tokens, examples.length - 1)
    assert torch.equal(problem.naive_logits(problem.all_edges(), examples), expected)
    assert torch.equal(problem.logits(problem.all_edges(), examples), expected)


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
@pytest.mark.parametrize("activation_density", [None, 0.5])
def test_every_fast_path_equals_the_naive_one_on_random_masks(ablation: Any, activation_density: Any) -> None:
    for seed in range(4):
        model = randomised(seed, 0.4, n_layers=2, sink=True, activation_density=activation_density).double()
        examples = some_examples(30, seed)
        problem = Problem.of(model, examples, [*CRITERION, Bound("kl", at_most=9.0)], ablation)
        focused = random_subset(problem.all_edges(), 0.6, seed)
        problem.focus(focused)
        for share in (1.0, 0.7, 0.1):
            kept = random_subset(focused, share, seed + 5)
            naive = problem.naive_logits(kept, examples)
            assert (problem.logits(kept, examples) - naive).abs().max() < 1e-9
            soft = problem.soft_logits(kept.double(), examples)
            assert (soft - naive).abs().max() < 1e-9
            full = problem.naive_logits(problem.all_edges(), examples)
            expected = measure(naive, examples, full)
            values = problem.values(kept)
            assert values == pytest.approx({name: expected[name] for name in values}, abs=1e-9)


def test_means_may_come_from_another_split() -> None:
    model, behaviour = randomised(), some_behaviour()
    splits = {**behaviour.splits, "report": some_examples(30, seed=7)}
    own = prepare(model, Ablation("mean"), splits)
    other = prepare(model, Ablation("mean", distribution="report"), splits)
    assert own.means.keys() == other.means.keys()
    assert any((own.means[name] - other.means[name]).abs().max() > 1e-3 for name in own.means)
    with pytest.raises(SparselitError, match=r"one of the splits discovery, selection, report, got 'elsewhere'"):
        prepare(model, Ablation("mean", distribution="elsewhere"), splits)


def test_a_token_that_does_not_occur_has_the_mean_of_all() -> None:
    model, examples = randomised(), some_examples()
    few = examples._replace(tokens=examples.tokens.clamp(max=1))
    means = prepare(model, Ablation("mean", per="token"), {"discovery": few}).means["layers.0.attn.q.weight"]
    overall = prepare(model, Ablation("mean"), {"discovery": few}).means["layers.0.attn.q.weight"]
    assert means.shape[0] == VOCABULARY
    assert torch.allclose(means[4], overall[0], atol=1e-6)
    assert not torch.allclose(means[0], overall[0], atol=1e-4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nil", r"ablation.kind must be one of zero, mean, resample, got 'nil'"),
        ({"kind": "mean", "per": "day"}, r"ablation.per must be one of all, token, position, got 'day'"),
        ({"kind": "mean", "norm": "cold"}, r"ablation.norm must be one of live, frozen, got 'cold'"),
        ({"kind": "zero", "per": "token"}, r"belong to mean ablation, not to zero"),
        ({"kinds": "zero"}, r"give kind, distribution, per, norm"),
    ],
)
def test_what_is_no_ablation_is_refused_by_name(given: Any, message: str) -> None:
    with pytest.raises(SparselitError, match=message):
        as_ablation(given)


@pytest.fixture(scope="module")
def model() -> Transformer:
    """Small, with answers that differ."""
    return randomised(seed=4, density=0.5, sink=True, unembed_bias=False)


def disjoint_behaviour(model: Transformer) -> Behaviour:
    """Different prompts of the whole length, 300 in each split, answered by the model itself."""
    every = torch.cartesian_prod(*[torch.arange(VOCABULARY)] * LENGTH)
    tokens = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))[:900]]
    length = torch.full((900,), LENGTH)
    with torch.no_grad():
        answer = model(tokens, length - 1).argmax(-1)
    everything = Examples(
        tokens, length, answer, (answer + 1) % VOCABULARY, tokens.roll(1, 0), torch.zeros_like(length)
    )
    names = ("discovery", "selection", "report")
    splits = {name: everything.select(slice(300 * i, 300 * i + 300)) for i, name in enumerate(names)}
    return Behaviour(splits, list("abcde"), ("all",), {"class_path": "Mine", "init_args": {}})


@pytest.mark.parametrize(
    ("ablation", "granularity", "criterion"),
    [
        ("resample", "weight", [Bound("kl", at_most=0.3)]),
        ({"kind": "mean", "per": "position", "norm": "frozen"}, "weight", [Bound("accuracy", at_least=0.75)]),
        ("mean", "channel", [Bound("answer_loss", at_most=2.0), Bound("accuracy", at_least=0.75)]),
        ("zero", "head", [Bound("kl_max", at_most=6.0)]),
        ("zero", "token", [Bound("accuracy", at_least=0.5)]),
        ("zero", "layer", [Bound("accuracy", at_least=0.5)]),
    ],
    ids=str,
)
def test_whatever_the_problem_its_circuit_is_verified_from_its_files(
    model: Transformer, ablation: Any, granularity: Any, criterion: Any, tmp_path: Any
) -> None:
    behaviour = disjoint_behaviour(model)
    circuit = discover(model, behaviour, criterion, ablation, GroupTesting(), granularity=granularity)
    write_circuit(tmp_path / "step=1.json", circuit, model, behaviour)
    verdict = verify(tmp_path / "step=1.json")
    assert verdict["false_claims"] == []
    assert verdict["holds"]
    assert verdict["minimal"]
    assert circuit.certificate.granularity == granularity
    assert circuit.certificate.complete
    unit = "edge" if granularity == "weight" else granularity
    words = (
        f"no single {unit} can go" if circuit.certificate.removals else f"no {unit} can go: there is no {unit} in it"
    )
    assert ("certificate", words) in circuit_facts(found_circuit(circuit, "step=1.json"))
