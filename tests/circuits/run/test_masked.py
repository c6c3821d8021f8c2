"""The masked forward pass: the model itself when everything is open, constants when nothing is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparselit.circuits.criterion import Bound, holds, measure
from sparselit.circuits.run import ablation
from sparselit.circuits.run.ablation import source_means
from sparselit.circuits.run.fast import FastEngine
from sparselit.circuits.run.masked import context, masked_logits
from sparselit.circuits.search.problem import Problem
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import matrices
from tests.circuits.models import (
    LENGTH,
    VOCABULARY,
    compactable,
    configs,
    random_channels,
    random_subset,
    randomised,
    seeds,
    some_examples,
)

CRITERION = [Bound("task_loss", at_most=10.0)]
kinds = st.sampled_from(["zero", "mean"])


ONE_CHANNEL: dict[str, Any] = {"n_heads": 2, "d_head": 1, "sink": True, "bias": False}


@settings(max_examples=60, deadline=None)
@given(configs, kinds, st.sampled_from([1.0, 0.3]))
@example(ONE_CHANNEL, "zero", 1.0)  # whose attention output was laid out in another way
def test_all_open_masks_give_the_models_logits_bit_for_bit(config: dict[str, Any], kind: Any, density: float) -> None:
    model, examples = randomised(density=density, **config), some_examples()
    problem = Problem.of(model, examples, CRITERION, kind)
    with torch.no_grad():
        expected = model(examples.tokens, examples.length - 1)
        masks = problem.edges.masks(problem.all_edges())
        everywhere = masked_logits(model, masks, context(model, problem.engine.replacement, examples.tokens))
        assert torch.equal(everywhere, model(examples.tokens))
    assert torch.equal(problem.naive_logits(problem.all_edges(), examples), expected)
    assert torch.equal(problem.logits(problem.all_edges(), examples), expected)


@settings(max_examples=20, deadline=None)
@given(configs, st.sampled_from(["zero", "mean", "resample"]), seeds)
def test_a_run_of_the_fast_engine_equals_one_of_the_naive_engine(config: dict[str, Any], kind: Any, seed: int) -> None:
    model, examples = randomised(seed, 0.5, **config).double(), some_examples(seed=seed)
    fast = FastEngine.of(model, kind, {"discovery": examples})
    focused = random_subset(fast.everything(), 0.6, seed)
    fast.focus(focused)
    for kept in (focused, random_subset(focused, 0.7, seed), fast.everything()):
        for at in (None, examples.length - 1):
            one, other = (e.run(kept, examples.tokens, at, examples.corrupted) for e in (fast, fast.naive))
            assert (one - other).abs().max() < 1e-9
    with pytest.raises(ValueError, match="portions need examples"):
        fast.portions(focused, lambda: None)


def by_hand(model: Transformer, kept: Tensor, problem: Problem) -> Transformer:
    """Another model whose weights outside ``kept`` are zero: what zero ablation means."""
    zeroed = Transformer(**model.config | {"tied": False})
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for index in (~kept).nonzero()[:, 0].tolist():
        name, row, column = problem.edges.describe(index)
        if state[name].ndim == 1:
            state[name][row] = 0.0
        else:
            state[name][row, column] = 0.0
    zeroed.load_state_dict(state)
    return zeroed.eval()


@settings(max_examples=40, deadline=None)
@given(configs, st.floats(0.0, 1.0), seeds)
def test_zero_ablation_equals_a_model_without_those_weights(config: dict[str, Any], share: float, seed: int) -> None:
    model, examples = randomised(**config), some_examples()
    problem = Problem.of(model, examples, CRITERION)
    kept = random_subset(problem.all_edges(), share, seed)
    with torch.no_grad():
        expected = by_hand(model, kept, problem)(examples.tokens, examples.length - 1)
    assert torch.equal(problem.naive_logits(kept, examples), expected)


@settings(max_examples=30, deadline=None)
@given(configs)
def test_without_any_edge_or_bias_the_logits_are_zero(config: dict[str, Any]) -> None:
    model, examples = randomised(**config), some_examples()
    if model.norm_kind == "layer" or model.config["positions"] == "sinusoidal":
        return  # what is no edge, the shift of a norm and fixed positions, stays
    problem = Problem.of(model, examples, CRITERION)
    assert not problem.naive_logits(~problem.all_edges(), examples).any()


@settings(max_examples=30, deadline=None)
@given(configs)
def test_under_mean_ablation_nothing_but_a_constant_is_left_of_an_empty_circuit(config: dict[str, Any]) -> None:
    model, examples = randomised(**config), some_examples()
    problem = Problem.of(model, examples, CRITERION, "mean")
    logits = problem.naive_logits(~problem.all_edges(), examples)
    assert torch.allclose(logits, logits[:1].expand_as(logits), atol=1e-6)
    assert logits.abs().max() > 1e-3


def test_a_removed_edge_contributes_its_weight_times_its_sources_mean() -> None:
    model, examples = randomised(n_layers=1), some_examples()
    problem = Problem.of(model, examples, CRITERION, "mean")
    place = ("layers.0.mlp.down.weight", 2, 3)
    kept = ~problem.edges.find([place])
    at = examples.length - 1
    with model.sites.recorded(["layers.0.mlp.act"]) as records, torch.no_grad():
        model(examples.tokens, at)
    neuron = records["layers.0.mlp.act"][:, 0, 3]
    weight = model.get_parameter(place[0])[2, 3].detach()

    def correct(written: Tensor) -> Tensor:
        written = written.clone()
        written[:, 0, 2] += weight * (neuron.mean() - neuron)
        return written

    with model.sites.edited(after={"layers.0.mlp.out": correct}), torch.no_grad():
        expected = model(examples.tokens, at)
    assert torch.allclose(problem.naive_logits(kept, examples), expected, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(configs, kinds)
def test_captured_means_equal_the_means_of_a_masked_run(config: dict[str, Any], kind: Any) -> None:
    model, examples = randomised(**config), some_examples()
    problem = Problem.of(model, examples, CRITERION, kind)
    means = source_means(model, examples)
    at = examples.length - 1
    with model.sites.recorded() as records, torch.no_grad():
        known = context(model, problem.engine.replacement, examples.tokens, at)
        masked_logits(model, problem.edges.masks(problem.all_edges()), known)
    for name, bundle in matrices(model).items():
        site = bundle.source
        if site in ("token", "position"):
            continue
        rows = []
        for i, length in enumerate(examples.length.tolist()):
            x = records[site][min(i, len(records[site]) - 1)]
            rows += [x[0]] if len(x) == 1 else list(x[:length])
        assert torch.allclose(means[name][0], torch.stack(rows).mean(0), atol=1e-6), site


@pytest.mark.parametrize("per", ["all", "token", "position"])
def test_means_taken_in_portions_are_those_of_all(per: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = randomised(bigram=True).double(), some_examples(300)
    whole = source_means(model, examples, per)
    monkeypatch.setattr(ablation, "RECORDED_BYTES", 1)  # 64 examples at a time
    parts = source_means(model, examples, per)
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(whole[name], parts[name], atol=1e-12) for name in whole)


def test_the_mean_of_tokens_and_positions_is_their_frequency() -> None:
    examples = some_examples()
    means = source_means(randomised(bigram=True), examples)
    tokens = [t for row, n in zip(examples.tokens.tolist(), examples.length.tolist(), strict=True) for t in row[:n]]
    places = [t for n in examples.length.tolist() for t in range(n)]
    last = examples.tokens.gather(1, examples.length[:, None] - 1)[:, 0].tolist()
    for name, found, count in (
        ("embed.token.weight", tokens, VOCABULARY),
        ("embed.position.weight", places, LENGTH),
        ("bigram.weight", last, VOCABULARY),  # read at the answer only
    ):
        assert means[name][0].tolist() == pytest.approx([found.count(i) / len(found) for i in range(count)])


# -- fast paths --------------------------------------------------------------------------------------------------------


@settings(max_examples=120, deadline=None)
@given(
    config=compactable,
    focus=st.sampled_from([0.9, 0.5, 0.1, 0.02]),
    channels=st.sampled_from([0.7, 0.8, 0.5, 1.0]),
    share=st.floats(0.3, 1.0),
    density=st.sampled_from([1.0, 0.4]),
    seed=seeds,
)
def test_the_compacted_model_equals_the_naive_masked_forward(
    config: dict[str, Any], focus: float, channels: float, share: float, density: float, seed: int
) -> None:
    model, examples = randomised(seed, density, **config).double(), some_examples(seed=seed)
    problem = Problem.of(model, examples, CRITERION)
    living = random_channels(problem.edges, channels, seed)
    for focused in (living, random_subset(living, focus, seed)):
        problem = Problem.of(model, examples, CRITERION)
        problem.focus(focused)
        assert problem.engine.compacted is not None
        for kept in (focused, random_subset(focused, share, seed + 1), torch.zeros_like(focused)):
            difference = problem.logits(kept, examples) - problem.naive_logits(kept, examples)
            assert difference.abs().max() < 1e-9


@pytest.mark.parametrize(
    "alive",
    [["q"], ["k"], ["v"], ["o"], ["q", "k"], ["q", "k", "v", "o"], ["q", "v", "o"], ["k", "v", "o"], ["v", "o"]],
)
@pytest.mark.parametrize("channel", range(4))
def test_one_channel_of_one_head_is_compacted_right_whatever_is_left_of_it(alive: list[str], channel: int) -> None:
    """Two heads of two channels, of which the wired one may be any, with a sink of its own."""
    model, examples = randomised(d_head=2, sink=True, norm="none").double(), some_examples()
    problem = Problem.of(model, examples, CRITERION)
    focused = torch.tensor(
        [
            all(
                site[-1] not in "qkv" or (c == channel and (name.split(".")[3] in alive))
                for site, c in problem.edges.endpoints(i)
                if ".attn." in name
            )
            for i, name in ((i, problem.edges.describe(i)[0]) for i in range(len(problem.edges)))
        ]
    )
    problem.focus(focused)
    for seed in range(4):
        kept = random_subset(focused, 0.8, seed) if seed else focused
        difference = problem.logits(kept, examples) - problem.naive_logits(kept, examples)
        assert difference.abs().max() < 1e-9


@settings(max_examples=30, deadline=None)
@given(configs, kinds, seeds)
def test_whatever_was_focused_on_any_set_of_edges_is_evaluated_right(
    config: dict[str, Any], kind: Any, seed: int
) -> None:
    model, examples = randomised(seed, **config).double(), some_examples(seed=seed)
    problem = Problem.of(model, examples, CRITERION, kind)
    focused = problem.all_edges()
    for step in range(4):
        focused = random_subset(focused, 0.6, seed + step)
        problem.focus(focused)
        for kept in (focused, random_subset(problem.all_edges(), 0.5, seed + 10), problem.all_edges()):
            difference = problem.logits(kept, examples) - problem.naive_logits(kept, examples)
            assert difference.abs().max() < 1e-9


@settings(max_examples=60, deadline=None)
@given(configs, kinds, st.floats(0.3, 1.0), st.sampled_from([0.95, 0.5, 0.0]), seeds)
def test_an_evaluation_that_begins_at_the_first_difference_equals_the_naive_forward(
    config: dict[str, Any], kind: Any, share: float, closer: float, seed: int
) -> None:
    """Many subsets of one announced set, so that its residual streams are used; whole blocks are unread in some."""
    model, examples = randomised(seed, **config).double(), some_examples(seed=seed)
    problem = Problem.of(model, examples, CRITERION, kind)
    focused = random_subset(problem.all_edges(), share, seed)
    problem.focus(focused)
    blocks = sorted({name.rsplit(".", 2)[0] for name in problem.edges.names}, reverse=True)
    for block in blocks * 2:  # the same answers before and after the streams are there
        here = torch.tensor([name.startswith(block) for name in problem.edges.names])[problem.edges.matrix]
        kept = torch.where(here, random_subset(focused, closer, seed + 1), focused)
        expected, values = measure(problem.naive_logits(kept, examples), examples), problem.values(kept)
        assert values == pytest.approx({name: expected[name] for name in values}, abs=1e-9)
    assert problem.engine.streams is not None
    if config["n_layers"]:
        assert problem.engine.streams.records


def test_in_single_precision_the_compacted_model_is_as_close_as_rounding_allows() -> None:
    for seed in range(20):
        model, examples = randomised(seed, sink=True, bigram=True), some_examples(seed=seed)
        problem = Problem.of(model, examples, CRITERION)
        focused = random_channels(problem.edges, 0.8, seed)
        problem.focus(focused)
        difference = problem.logits(focused, examples) - problem.naive_logits(focused, examples)
        assert difference.dtype == torch.float
        assert difference.abs().max() < 1e-5


def test_the_compacted_model_is_smaller_and_the_full_one_untouched() -> None:
    model, examples = randomised(n_layers=2, sink=True, d_model=32, d_mlp=32), some_examples()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    problem = Problem.of(model, examples, CRITERION)
    state = torch.random.get_rng_state()
    problem.focus(random_subset(problem.all_edges(), 0.004, 0))
    assert torch.equal(torch.random.get_rng_state(), state)
    small = problem.engine.compacted
    assert small is not None
    assert sum(p.numel() for p in small.model.parameters()) < sum(p.numel() for p in model.parameters()) / 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_metrics_do_not_depend_on_how_the_examples_are_cut_into_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, examples = randomised(), some_examples(20)
    problem = Problem.of(model, examples, CRITERION)
    whole = problem.values(problem.all_edges())
    monkeypatch.setattr("sparselit.circuits.criterion.PORTION", 7)
    assert problem.values(problem.all_edges()) == pytest.approx(whole, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(
    share=st.floats(0.0, 1.0),
    metric=st.sampled_from(["task_loss", "answer_loss", "accuracy"]),
    at_most=st.booleans(),
    offset=st.sampled_from([-0.3, -1e-3, 0.0, 1e-3, 0.3]),
    portion=st.sampled_from([1, 3, 20, 512]),
    seed=st.integers(0, 100),
)
def test_giving_an_evaluation_up_early_never_changes_its_verdict(
    share: float, metric: str, at_most: bool, offset: float, portion: int, seed: int
) -> None:
    model, examples = randomised(seed), some_examples(20, seed)
    kept = random_subset(Problem.of(model, examples, CRITERION).all_edges(), share, seed)
    value = Problem.of(model, examples, CRITERION).values(kept)[metric] + offset
    other = Bound("answer_loss", at_most=20.0)
    bound = Bound(metric, at_most=value) if at_most else Bound(metric, at_least=value)
    problem = Problem.of(model, examples, [other, bound])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparselit.circuits.criterion.PORTION", portion)
        verdict = problem.works(kept)
    assert problem.cost.evaluations == 1
    assert problem.cost.forwards <= -(-20 // portion)
    if offset:
        assert verdict == holds(problem.criterion, problem.values(kept))


@pytest.mark.parametrize("right", range(1, 20))
def test_a_share_that_is_exactly_the_bound_meets_it(right: int) -> None:
    """0.9 in single precision is below 0.9: the mean must not be."""
    model, examples = randomised(), some_examples(20)
    with torch.no_grad():
        answer = model(examples.tokens, examples.length - 1).argmax(-1)
    answer = torch.where(torch.arange(20) < right, answer, (answer + 1) % VOCABULARY)
    examples = examples._replace(answer=answer, wrong=(answer + 1) % VOCABULARY)
    problem = Problem.of(model, examples, [Bound("accuracy", at_least=right / 20)])
    assert problem.works(problem.all_edges())
    assert holds(problem.criterion, problem.values(problem.all_edges()))
    assert not holds([Bound("accuracy", at_least=right / 20 + 1e-6)], problem.values(problem.all_edges()))


def test_every_evaluation_is_counted() -> None:
    problem = Problem.of(randomised(), some_examples(), CRITERION)
    problem.values(problem.all_edges())
    problem.works(problem.all_edges())
    assert (problem.cost.evaluations, problem.cost.forwards, problem.cost.backwards) == (2, 2, 0)


def test_ablation_leaves_no_edit_behind() -> None:
    model, examples = randomised(), some_examples()
    problem = Problem.of(model, examples, CRITERION, "mean")
    problem.naive_logits(random_subset(problem.all_edges(), 0.5, 0), examples)
    assert not any(site.attached for site in model.sites.values())
