"""Ranking, group testing and the certificate, on models and on criteria made up to be difficult."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sparselit.circuits import Bound, discover
from sparselit.circuits import search as search_module
from sparselit.circuits.criterion import METRICS, holds
from sparselit.circuits.run.masked import context, masked_logits
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.search import Found, GroupTesting, NodeMasks, Progress, Search
from sparselit.circuits.search.base import attempt, certify, smallest_failure, without
from sparselit.circuits.search.learned import furthest
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranking import integrated_gradients
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from tests.circuits.models import configs, randomised, some_behaviour, some_examples
from tests.ground_truth.cases import copy_last


def quiet(stage: str, edges: int) -> None:
    pass


class Puzzle(Problem):
    """A problem whose criterion is any function of the set of edges: accuracy 1 where it is true, otherwise 0."""

    def __init__(self, n: int, works: Callable[[set[int]], bool]) -> None:
        model = randomised(n_layers=0, bias=False, positions="none", norm="none")
        super().__init__(NaiveEngine.of(model), some_examples(4), [Bound("accuracy", at_least=0.5)])
        assert len(self.edges) >= n
        self.n, self.rule = n, works
        self.asked: list[frozenset[int]] = []

    def all_edges(self) -> Tensor:
        return torch.arange(len(self.edges)) < self.n

    def useful(self, kept: Tensor) -> Tensor:
        return kept

    def evaluation(self, kept: Tensor) -> Any:
        self.cost.evaluations += 1
        chosen = frozenset(kept.nonzero()[:, 0].tolist())
        self.asked.append(chosen)
        return Answer(self.rule(set(chosen)))

    def names(self, edges: Iterable[int]) -> set[str]:
        return set(self.removal_units(torch.isin(torch.arange(len(self.edges)), torch.tensor(sorted(edges)))))


class Answer:
    """An evaluation whose outcome is known."""

    def __init__(self, right: bool) -> None:
        self.right = right

    def holds(self) -> bool:
        return self.right

    def values(self) -> dict[str, float]:
        return {"task_loss": 0.0, "answer_loss": 0.0, "accuracy": float(self.right)}


class Ordered(GroupTesting):
    """Group testing in a given order, by default that of the list."""

    def __init__(self, importance: Tensor | None = None) -> None:
        super().__init__()
        self.importance = importance

    def rank(self, problem: Problem) -> Tensor:
        return torch.zeros(len(problem.edges)) if self.importance is None else self.importance


def members(kept: Tensor) -> set[int]:
    return set(kept.nonzero()[:, 0].tolist())


# -- the ranking -------------------------------------------------------------------------------------------------------


def signed(problem: Problem, steps: int) -> Tensor:
    """Integrated gradients by central differences: the loss with each edge a little more open, and a little less."""
    examples, n = problem.discovery, len(problem.edges)
    total = torch.zeros(n)

    def loss(kept: Tensor) -> float:
        masks = problem.edges.masks(kept)
        known = context(problem.model, problem.engine.replacement, examples.tokens, examples.length - 1)
        logits = masked_logits(problem.model, masks, known)
        return float(F.cross_entropy(logits, examples.answer))

    with torch.no_grad():
        for step in range(steps):
            for i in range(n):
                point = torch.full((n,), (step + 0.5) / steps, dtype=torch.double)
                point[i] += 1e-4
                above = loss(point)
                point[i] -= 2e-4
                total[i] -= (above - loss(point)) / 2e-4 / steps
    return total


@pytest.mark.parametrize("kind", ["zero", "mean"])
@pytest.mark.parametrize("norm", ["rms", "none"])
def test_the_ranking_is_the_integrated_gradient_and_its_signed_sum_is_the_drop_of_the_loss(
    kind: Any, norm: Any
) -> None:
    size: dict[str, Any] = {"d_model": 3, "n_heads": 1, "d_head": 2, "d_mlp": 2, "positions": "none"}
    model = randomised(density=0.5, norm=norm, **size).double()
    problem = Problem.of(model, some_examples(12), [Bound("task_loss", at_most=9.0)], kind)
    steps = 6
    expected = signed(problem, steps)
    assert torch.allclose(integrated_gradients(problem, steps).double(), expected.abs().double(), atol=1e-5)
    empty = problem.values(~problem.all_edges())["task_loss"]
    full = problem.values(problem.all_edges())["task_loss"]
    assert float(expected.sum()) == pytest.approx(empty - full, rel=0.1)
    assert (expected < -1e-3).any()
    assert (expected > 1e-3).any()


def test_the_ranking_costs_one_forward_and_one_backward_per_step_and_works_without_gradients() -> None:
    problem = Problem.of(randomised(), some_examples(), [Bound("task_loss", at_most=9.0)])
    with torch.no_grad():
        ranked = integrated_gradients(problem, steps=3)
    assert torch.equal(ranked, integrated_gradients(problem, steps=3))
    assert (problem.cost.evaluations, problem.cost.forwards, problem.cost.backwards) == (0, 6, 6)
    assert all(p.grad is None for p in problem.model.parameters())


def test_the_ranking_uses_the_first_examples_only() -> None:
    examples = some_examples(32)
    model, criterion = randomised(), [Bound("task_loss", at_most=9.0)]
    few = integrated_gradients(Problem.of(model, examples, criterion), 2, examples=8)
    alone = integrated_gradients(Problem.of(model, examples.select(slice(0, 8)), criterion), 2)
    assert torch.equal(few, alone)


# -- group testing -----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 25), needed=st.sets(st.integers(0, 24)), seed=st.integers(0, 1000))
def test_a_monotone_puzzle_with_one_solution_is_solved_exactly_in_any_order(
    n: int, needed: set[int], seed: int
) -> None:
    needed = {i for i in needed if i < n}
    problem = Puzzle(n, lambda kept: needed <= kept)
    order = torch.rand(len(problem.edges), generator=torch.Generator().manual_seed(seed))
    found = Ordered(order).run(problem)
    assert found.complete
    assert members(found.kept) == needed
    assert set(found.removals) == problem.names(needed)
    assert problem.cost.evaluations <= 3 * n + 2


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 12),
    groups=st.lists(st.sets(st.integers(0, 11), min_size=1), min_size=1, max_size=6),
    broken=st.sets(st.frozensets(st.integers(0, 11)), max_size=20),
    seed=st.integers(0, 1000),
)
def test_whatever_the_criterion_the_result_works_and_no_single_edge_can_go(
    n: int, groups: list[set[int]], broken: set[frozenset[int]], seed: int
) -> None:
    everything = set(range(n))

    def works(kept: set[int]) -> bool:
        if kept == everything:
            return True
        return any({i for i in group if i < n} <= kept for group in groups) and frozenset(kept) not in broken

    problem = Puzzle(n, works)
    order = torch.rand(len(problem.edges), generator=torch.Generator().manual_seed(seed))
    found = Ordered(order).run(problem)
    kept = members(found.kept)
    assert found.complete
    assert works(kept)
    assert not any(works(kept - {i}) for i in kept)
    assert found.removals == dict.fromkeys(problem.names(kept), Answer(False).values())


def test_a_necessary_edge_that_becomes_superfluous_later_is_still_removed() -> None:
    # 0 and 1 cancel: without 0 alone it breaks, without 1 alone it does not, and without both it works.
    def works(kept: set[int]) -> bool:
        return 3 in kept and (0 in kept or 1 not in kept)

    problem = Puzzle(4, works)
    found = Found(problem.all_edges())
    certify(problem, found, quiet)
    assert members(found.kept) == {3}
    assert found.complete


def test_the_ranking_decides_nothing() -> None:
    """Group testing tries the necessary edges first when the ranking is upside down, and keeps them."""
    problem = Puzzle(20, lambda kept: {2, 11, 17} <= kept)
    importance = torch.ones(len(problem.edges))
    importance[[2, 11, 17]] = 0.0
    found = Ordered(importance).run(problem)
    assert members(found.kept) == {2, 11, 17}


def test_a_good_ranking_saves_evaluations() -> None:
    spent = []
    for best in (1.0, -1.0):
        problem = Puzzle(25, lambda kept: {3, 9, 16} <= kept)
        importance = torch.zeros(len(problem.edges))
        importance[[3, 9, 16]] = best
        Ordered(importance).run(problem)
        spent.append(problem.cost.evaluations)
    assert spent[0] < spent[1]


def test_a_search_may_begin_with_some_edges_only() -> None:
    problem = Puzzle(20, lambda kept: {5} <= kept or {1} <= kept)
    start = torch.zeros(len(problem.edges), dtype=torch.bool)
    start[[1, 2, 3]] = True
    found = Ordered().run(problem, start)
    assert members(found.kept) == {1}
    assert all(asked <= {1, 2, 3} for asked in problem.asked)
    assert members(start) == {1, 2, 3}


def test_an_empty_set_that_works_is_a_complete_circuit() -> None:
    found = Ordered().run(Puzzle(9, lambda kept: True))
    assert (members(found.kept), found.removals, found.complete) == (set(), {}, True)


@settings(max_examples=15, deadline=None)
@given(configs, st.sampled_from(["zero", "mean"]), st.integers(0, 100))
def test_on_real_models_the_certificate_is_true_by_the_naive_path(config: dict[str, Any], kind: Any, seed: int) -> None:
    model, examples = randomised(seed, 0.3, **config), some_examples()
    with torch.no_grad():
        answer = model(examples.tokens, examples.length - 1).argmax(-1)
    examples = examples._replace(answer=answer, wrong=(answer + 1) % 5)
    full = Problem.of(model, examples, [Bound("task_loss", at_most=99.0)], kind)
    loss = full.values(full.all_edges())["task_loss"]
    criterion = [Bound("task_loss", at_most=loss + 0.2), Bound("accuracy", at_least=0.8)]
    problem = Problem.of(model, examples, criterion, kind)
    found = GroupTesting(steps=3).run(problem)
    naive = Problem.of(model, examples, criterion, kind)
    naive.focus = lambda kept: None  # type: ignore[method-assign]
    assert found.complete
    assert naive.works(found.kept)
    units = naive.removal_units(found.kept)
    for name, unit in units.items():
        values = naive.values(without(found.kept, unit))
        assert not holds(criterion, values)
        certified = {bound.metric: values[bound.metric] for bound in criterion}
        assert certified == pytest.approx(found.removals[name], abs=1e-4)
    assert len(units) == int(found.kept.sum())
    assert set(units) == set(found.removals)
    assert smallest_failure(problem, found) > 0 or not found.removals


def test_values_below_one_are_refused_by_name() -> None:
    for key in ("steps", "examples"):
        with pytest.raises(SparselitError, match=rf"{key} must be at least 1, got 0"):
            GroupTesting(**{key: 0})


# -- stopped before the end --------------------------------------------------------------------------------------------


class OneByOne(Search):
    """Asks for every edge once."""

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        for i in sorted(members(found.kept)):
            attempt(problem, found, without(found.kept, torch.tensor([i])))
            progress("one by one", int(found.kept.sum()))


def interrupted_after(calls: int) -> Progress:
    seen: list[int] = []

    def progress(stage: str, edges: int) -> None:
        seen.append(edges)
        if len(seen) == calls:
            raise KeyboardInterrupt

    return progress


def searches() -> Iterable[Search]:
    return OneByOne(), Ordered()


@pytest.mark.parametrize("calls", [1, 2, 5, 14])
def test_ctrl_c_gives_the_best_set_so_far_which_works_and_is_not_complete(calls: int) -> None:
    for search in searches():
        problem = Puzzle(12, lambda kept: set(range(3, 9)) <= kept)
        found = search.run(problem, progress=interrupted_after(calls))
        assert not found.complete
        assert problem.rule(members(found.kept))
        assert set(found.removals) <= problem.names(members(found.kept))


def test_a_deadline_in_the_past_stops_at_once_and_one_in_the_future_does_not() -> None:
    for search in searches():
        problem = Puzzle(12, lambda kept: {4} <= kept)
        early = search.run(problem, deadline=time.monotonic() - 1)
        assert not early.complete
        assert problem.rule(members(early.kept))
        assert problem.cost.evaluations <= 12
        late = search.run(Puzzle(12, lambda kept: {4} <= kept), deadline=time.monotonic() + 60)
        assert late.complete
        assert members(late.kept) == {4}


def test_an_interruption_inside_an_evaluation_leaves_no_claim_about_edges_that_are_gone() -> None:
    """Ctrl-C may come between any two statements; here it comes where the smaller set is announced."""

    class Interrupted(Puzzle):
        def focus(self, kept: Tensor) -> None:
            if int(kept.sum()) < 6:
                raise KeyboardInterrupt

    problem = Interrupted(6, lambda kept: len(kept) >= 5 or kept == {0, 1, 2, 3, 5})
    problem.rule = lambda kept: {0, 1, 2, 3, 5} <= kept
    found = OneByOne().run(problem)
    assert not found.complete
    assert set(found.removals) <= problem.names(members(found.kept))


def test_any_other_error_is_not_swallowed() -> None:
    def broken(kept: set[int]) -> bool:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        OneByOne().run(Puzzle(3, broken))


def test_progress_is_told_the_stage_and_the_edges_left() -> None:
    told: list[tuple[str, int]] = []
    search = Ordered()
    search.run(Puzzle(12, lambda kept: {4, 5} <= kept), progress=lambda stage, edges: told.append((stage, edges)))
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["group testing", "certificate"]
    assert told[-1] == ("certificate", 2)
    left = [edges for _, edges in told]
    assert left == sorted(left, reverse=True)


# -- what a search costs -----------------------------------------------------------------------------------------------


class LargePuzzle(Puzzle):
    """One with ten thousand edges."""

    def __init__(self, works: Callable[[set[int]], bool]) -> None:
        model = Transformer(100, 4, n_layers=0, d_model=50, n_heads=1, bias=False, positions="none", norm="none").eval()
        Problem.__init__(self, NaiveEngine.of(model), some_examples(4), [Bound("accuracy", at_least=0.5)])
        self.n, self.rule, self.asked = 10_000, works, []


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_group_testing_needs_little_more_than_any_search_must(k: int, seed: int) -> None:
    """Found and certified among 10,000 edges in random order: at most 1.25 (log2 C(N, k) + k) evaluations."""
    n = 10_000
    needed = set(torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k].tolist())
    problem = LargePuzzle(lambda kept: needed <= kept)
    found = Ordered(torch.zeros(len(problem.edges))).run(problem)
    assert members(found.kept) == needed
    bound = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2) + k
    assert problem.cost.evaluations <= 1.25 * bound + 2


@pytest.mark.parametrize("name", ["GroupTesting", "Attribution", "OneByOne", "QuickXplain"])
def test_no_search_needs_more_than_two_evaluations_for_each_edge(name: str) -> None:
    for seed in range(3):
        needed = {i for i in range(60) if i % 3 == seed}
        problem = Puzzle(60, lambda kept, needed=needed: needed <= kept)
        found = getattr(search_module, name)("random").run(problem)
        assert members(found.kept) == needed
        assert problem.cost.evaluations <= 2 * 60


def test_an_unchanged_circuit_is_found_again_in_three_evaluations_for_each_edge() -> None:
    model = randomised(seed=4, density=0.5, sink=True, unembed_bias=False)
    behaviour, criterion = some_behaviour(model), [Bound("accuracy", at_least=0.75)]
    circuit = discover(model, behaviour, criterion, search=GroupTesting(), ablation="zero")
    again = discover(model, behaviour, criterion, search=GroupTesting(), start=circuit.places, ablation="zero")
    assert again.places == circuit.places
    assert again.search.evaluations <= 3 * len(circuit.places) + 3
    assert again.search.evaluations < circuit.search.evaluations


class Nothing(Search):
    """Removes nothing, so that what is gone is gone for free."""

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        self.before = problem.cost.evaluations, found.kept


def test_edges_that_cannot_matter_go_without_an_evaluation() -> None:
    problem = Problem.of(randomised(seed=3, density=0.2), some_examples(), [Bound("task_loss", at_most=99.0)])
    search = Nothing()
    search.run(problem)
    evaluations, left = search.before
    assert evaluations == 0
    assert torch.equal(left, problem.useful(problem.all_edges()))
    assert 0 < int(left.sum()) < len(left)


def test_of_several_losses_masks_follow_the_one_that_stands_worst_beside_its_bound() -> None:
    model, examples = randomised(), some_examples(10)
    logits = model(examples.tokens, examples.length - 1).detach()
    task, answer = (METRICS[name](logits, examples, None).mean() for name in ("task_loss", "answer_loss"))
    for limit in (1.0, 100.0):
        bounds = [Bound("task_loss", at_most=2.0), Bound("answer_loss", at_most=limit)]
        expected = max(float(task), float(answer) * 2.0 / limit)
        assert float(furthest(bounds, logits, examples)) == pytest.approx(expected, rel=1e-6)
    assert float(furthest(bounds[:1], logits, examples)) == float(task)


def test_node_masks_do_not_all_close_at_once_where_the_model_is_sure() -> None:
    """Every gradient is nearly zero, so that equal margins would reach zero in the same step."""
    case = copy_last()
    with torch.no_grad():
        case.model.get_parameter("unembed.weight").mul_(3)
    problem = Problem.of(case.model, case.domain, case.criterion, "mean", "channel")
    masks = NodeMasks()
    margins = masks.start(problem, problem.all_edges())[:-1]
    assert len(margins.unique()) == len(margins)
    assert 0 < float(margins.min()) < float(margins.max()) == 1
    found = Found(problem.all_edges())
    masks.shrink(problem, found, lambda stage, edges: None)
    assert problem.works(found.kept)
