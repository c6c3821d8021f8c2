"""Using a circuit: running it, sets of edges, histories, stories, interventions, reruns."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.circuits import Bound, Circuit, discover, write_circuit
from sparselit.circuits.circuit import KeptBias, KeptEdge, ModelRecord, TaskRecord, model_hash
from sparselit.circuits.evidence.stability import rerun, search_of, summary
from sparselit.circuits.loaded import Loaded, load
from sparselit.circuits.run.ablation import as_ablation
from sparselit.circuits.run.masked import context, masked_logits
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.search import Auto, GroupTesting
from sparselit.circuits.sets import difference, intersection, jaccard, shared, union
from sparselit.circuits.size import nodes_of
from sparselit.circuits.use.history import history, history_of
from sparselit.circuits.use.intervene import Intervention, changed_logits, effect, means
from sparselit.circuits.use.names import parse_nodes, parse_place
from sparselit.circuits.use.story import activations, story
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges
from tests.circuits.models import (
    compactable,
    configs,
    random_channels,
    random_subset,
    randomised,
    seeds,
    some_behaviour,
)
from tests.circuits.records import some_circuit


def written(folder: Path, model: Transformer, kept: torch.Tensor, ablation: str | dict[str, Any] = "zero") -> Circuit:
    """A circuit file with any edges, and made-up evidence."""
    chosen = as_ablation(ablation)
    edges = Edges.of(model, chosen.removes_biases)
    behaviour = some_behaviour(model)
    places = edges.places(kept)

    def value(name: str, row: int, column: int) -> float:
        parameter = model.get_parameter(name).detach()
        return float(parameter[row] if parameter.ndim == 1 else parameter[row, column])

    circuit = some_circuit(
        [[*p, value(*p)] for p in places if not edges.bundles[p[0]].is_bias],
        model=ModelRecord(hash=model_hash(model.state_dict()), config=model.config),
        task=TaskRecord(class_path="Mine", init_args={}, vocabulary=tuple(behaviour.vocabulary), strata=("all",)),
        ablation=chosen,
        nodes=nodes_of(edges, kept),
        biases=tuple(KeptBias(*p[:2], value(*p)) for p in places if edges.bundles[p[0]].is_bias),
    )
    return write_circuit(folder / "step=7.json", circuit, model, behaviour)


def naive(model: Transformer, circuit: Circuit, tokens, at=None, corrupted=None) -> torch.Tensor:
    engine = NaiveEngine.of(model, circuit.ablation, some_behaviour(model).splits)
    masks = engine.edges.masks(engine.edges.find(circuit.places))
    with torch.no_grad():
        return masked_logits(model, masks, context(model, engine.replacement, tokens, at, corrupted))


# -- run ---------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(config=compactable, seed=seeds, share=st.sampled_from([0.3, 0.6, 0.9]))
def test_a_circuit_runs_alone_as_the_masked_model_does(tmp_path_factory, config, seed, share) -> None:
    model = randomised(seed, 0.7, **config)
    kept = random_channels(Edges.of(model), share, seed)
    circuit = written(tmp_path_factory.mktemp("run"), model, kept)
    report = some_behaviour(model).splits["report"]
    at = report.length - 1
    alone = load(circuit.path)
    small = alone.engine.compacted
    assert small is not None
    assert small.model.d_model <= model.d_model
    for where in (None, at):
        expected = naive(model, circuit, report.tokens, where)
        assert alone.run(report.tokens, where) == pytest.approx(
            expected, abs=1e-5 * max(1, float(expected.abs().max()))
        )


@settings(max_examples=15, deadline=None)
@given(config=configs, seed=seeds, kind=st.sampled_from(["mean", "resample"]))
def test_under_the_other_ablations_too(tmp_path_factory, config, seed, kind) -> None:
    model = randomised(seed, 0.7, **config)
    kept = random_subset(torch.ones(len(Edges.of(model, False)), dtype=torch.bool), 0.5, seed)
    circuit = written(tmp_path_factory.mktemp("run"), model, kept, {"kind": kind, "norm": "live"})
    report = some_behaviour(model).splits["report"]
    at = report.length - 1
    expected = naive(model, circuit, report.tokens, at, report.corrupted)
    assert load(circuit.path).run(report.tokens, at, report.corrupted) == pytest.approx(expected, abs=1e-5)


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    model = randomised(density=0.7)
    every = torch.ones(len(Edges.of(model, False)), dtype=torch.bool)
    circuit = load(written(tmp_path, model, every, "resample").path)
    tokens = torch.zeros(2, 4, dtype=torch.int64)
    with pytest.raises(SparselitError, match="corrupted prompts"):
        circuit.run(tokens)
    for wrong in (tokens[0], tokens.float(), tokens - 1, tokens + 5):
        with pytest.raises(SparselitError, match="below 5"):
            circuit.run(wrong, corrupted=tokens)


def test_a_circuit_that_names_an_edge_which_its_model_has_not_is_refused(tmp_path: Path) -> None:
    model = randomised(density=0.7)
    circuit = written(tmp_path, model, torch.ones(len(Edges.of(model)), dtype=torch.bool))
    more = (*circuit.edges, KeptEdge("embed.token.weight", 99, 0, 1.0))
    write_circuit(tmp_path / "step=7.json", replace(circuit, edges=more), model, some_behaviour(model))
    with pytest.raises(SparselitError, match="no edge"):
        load(tmp_path / "step=7.json")


def test_the_path_is_no_part_of_the_file(tmp_path: Path) -> None:
    model = randomised(density=0.7)
    circuit = written(tmp_path, model, torch.ones(len(Edges.of(model)), dtype=torch.bool))
    assert circuit.path == tmp_path / "step=7.json"
    assert "path" not in circuit.as_json()
    assert str(tmp_path) not in circuit.path.read_text()


# -- sets --------------------------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(seed=seeds)
def test_set_operations_are_those_of_sets_of_edges(tmp_path_factory, seed) -> None:
    model = randomised(seed, 0.7, unembed_bias=True)
    every = torch.ones(len(Edges.of(model)), dtype=torch.bool)
    a, b = (written(tmp_path_factory.mktemp("set"), model, random_subset(every, 0.4, seed + i)) for i in (0, 1))
    first, second = load(a.path), load(b.path)
    one, other = set(a.places), set(b.places)
    report = some_behaviour(model).splits["report"].tokens
    for function, expected in (
        (union, one | other),
        (intersection, one & other),
        (difference, one - other),
        (lambda a, _: difference(a, a), set()),
    ):
        alone = function(first, second)
        made = alone.circuit
        assert set(made.places) == expected
        assert made.size.edges == len(made.edges)
        assert alone.run(report) == pytest.approx(naive(model, made, report), abs=1e-4)
        for name, row, column, weight in made.edges:
            assert weight == float(model.get_parameter(name).detach()[row, column])
    common = shared(a, b)
    assert set(common.both) == one & other
    assert common.jaccard == jaccard(a.places, b.places) == len(one & other) / len(one | other)
    counts = common.by_matrix()
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [len(part) for part in common]


def test_circuits_of_other_weights_or_ablations_are_no_sets(tmp_path: Path) -> None:
    model = randomised(0, 0.7)
    every = torch.ones(len(Edges.of(model)), dtype=torch.bool)
    a = written(tmp_path / "a", model, every)
    b = written(tmp_path / "b", model, torch.ones(len(Edges.of(model, False)), dtype=torch.bool), "mean")
    changed = randomised(1, 0.7)
    c = written(tmp_path / "c", changed, torch.ones(len(Edges.of(changed)), dtype=torch.bool))
    wide = randomised(0, 0.7, n_layers=2)
    d = written(tmp_path / "d", wide, torch.ones(len(Edges.of(wide)), dtype=torch.bool))
    with pytest.raises(SparselitError, match="different ablations"):
        union(load(a.path), load(b.path))
    with pytest.raises(SparselitError, match="different weights"):
        union(load(a.path), load(c.path))
    assert 0 < shared(a, c).jaccard < 1  # their places can be compared
    with pytest.raises(SparselitError, match="n_layers"):
        shared(a, d)


# -- history -----------------------------------------------------------------------------------------------------------


def test_a_history_counts_births_and_deaths(tmp_path: Path) -> None:
    model = randomised(0, 0.7)
    every = torch.ones(len(Edges.of(model)), dtype=torch.bool)
    circuits = {step: written(tmp_path, model, random_subset(every, 0.5, step)) for step in (300, 20, 100)}
    sets = {step: set(circuit.places) for step, circuit in sorted(circuits.items())}
    found = history_of(circuits)
    assert list(found.circuits) == [20, 100, 300]
    assert set(found.born(20)) == sets[20]
    assert found.died(20) == []
    assert found.kept(20) is None
    for before, step in itertools.pairwise(found.circuits):
        assert set(found.born(step)) == sets[step] - sets[before]
        assert set(found.died(step)) == sets[before] - sets[step]
        assert found.kept(step) == jaccard(list(sets[before]), list(sets[step]))
    assert {e: set(s) for e, s in found.lives.items()} == {
        e: {step for step in sets if e in sets[step]} for e in set.union(*sets.values())
    }
    with pytest.raises(SparselitError, match="holds one circuit step"):
        history(tmp_path)


# -- story and interventions -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    model = randomised(seed=4, density=0.5, sink=True, unembed_bias=False)
    behaviour = some_behaviour(model)
    circuit = discover(model, behaviour, [Bound("accuracy", at_least=0.75)], ablation="zero")
    path = tmp_path_factory.mktemp("opened") / "step=7.json"
    write_circuit(path, circuit, model, behaviour)
    return load(path)


def test_a_story_says_every_edge_of_every_node_once(opened: Loaded) -> None:
    circuit = opened.circuit
    nodes = [(site, channel) for site, channels in circuit.nodes.items() for channel in channels]
    stories = [story(opened, node) for node in nodes]
    assert sorted(link.weight for s in stories for link in s.reads) == sorted(e[3] for e in circuit.edges)
    assert sorted(link.weight for s in stories for link in s.writes) == sorted(e[3] for e in circuit.edges)
    assert sorted(s.bias for s in stories if s.bias is not None) == sorted(b[2] for b in circuit.biases)
    for s in stories:
        for writer in s.written_by:
            assert s.node in story(opened, writer).read_by
    with pytest.raises(SparselitError, match="no node embed:99"):
        story(opened, ("embed", 99))


def test_peaks_are_the_largest_activations_of_the_circuit_run_alone(opened: Loaded) -> None:
    report = opened.behaviour.splits["report"]
    site = next(s for s in opened.circuit.nodes if s.startswith("layers.") and s.endswith((".v", ".act", ".out")))
    node = (site, opened.circuit.nodes[site][0])
    told = story(opened, node, top=7)
    problem = opened.problem
    best = []
    for i in range(len(report.answer)):  # one prompt at a time, without padding
        tokens = report.tokens[i : i + 1, : report.length[i]]
        with problem.model.sites.recorded([site]) as record, torch.no_grad():
            known = context(problem.model, opened.engine.replacement, tokens)
            masked_logits(problem.model, problem.edges.masks(opened.kept), known)
        best.append(float(record[site][0, :, node[1]].abs().max()))
    assert [abs(peak.value) for peak in told.peaks] == pytest.approx(sorted(best, reverse=True)[: len(told.peaks)])
    values, real = activations(opened, node, report)
    assert values.shape == real.shape == report.tokens.shape
    for peak in told.peaks:
        assert len(peak.tokens) > peak.position


def test_an_intervention_equals_a_model_with_other_weights(opened: Loaded) -> None:
    model, report = opened.problem.model, opened.behaviour.splits["report"]
    at = report.length - 1
    name, row, column, _ = opened.circuit.edges[0]
    other = Transformer(**model.config).eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        other.get_parameter(name)[row, column] *= 3
        other.get_parameter("layers.0.mlp.down.weight")[:, 2] *= -0.5
        expected = other(report.tokens, at)
        whole = model(report.tokens, at)
    change = Intervention(scale={("layers.0.mlp.act", 2): -0.5}, edges={(name, row, column): 3.0})
    assert changed_logits(model, change, report) == pytest.approx(expected, abs=1e-5)
    assert torch.equal(changed_logits(model, Intervention(), report), whole)
    found = effect(model, change, report)
    assert found["n"] == 40
    assert found["before"]["accuracy"] == 1  # the answers are the model's own
    assert found["after"]["accuracy"] == float((expected.argmax(-1) == report.answer).double().mean())
    assert found["flipped"] == pytest.approx(1 - found["after"]["accuracy"])
    nothing = effect(model, Intervention(), report)
    assert nothing["kl"] == pytest.approx(0, abs=1e-9)
    assert nothing["before"] == nothing["after"]


def test_patching_everything_gives_the_corrupted_prompt_and_ablation_the_mean(opened: Loaded) -> None:
    model, report = opened.problem.model, opened.behaviour.splits["report"]
    at = report.length - 1
    with torch.no_grad():
        expected = model(report.corrupted, at)
    patch = Intervention(patch={"unembed.in": list(range(model.d_model))})
    assert changed_logits(model, patch, report) == pytest.approx(expected, abs=1e-5)
    mean = means(model, ["layers.0.mlp.act"], report)
    rows = []
    for i in range(len(report.answer)):
        with model.sites.recorded(["layers.0.mlp.act"]) as record, torch.no_grad():
            model(report.tokens[i : i + 1, : report.length[i]])
        rows.append(record["layers.0.mlp.act"][0])
    assert mean["layers.0.mlp.act"] == pytest.approx(torch.cat(rows).mean(0), abs=1e-5)
    ablate = Intervention(ablate={"layers.0.mlp.act": [1, 3]})

    def constant(x: torch.Tensor) -> torch.Tensor:
        chosen = torch.tensor([False, True, False, True, False])
        return torch.where(chosen, mean["layers.0.mlp.act"], x)

    with model.sites.edited(after={"layers.0.mlp.act": constant}), torch.no_grad():
        assert torch.equal(changed_logits(model, Intervention(), report), changed_logits(model, ablate, report, mean))
    with pytest.raises(SparselitError, match="needs its mean"):
        changed_logits(model, ablate, report)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("layers.0.mlp.akt:1", "did you mean 'layers.0.mlp.act'"),
        ("layers.0.mlp.act:5", "0 to 4"),
        ("layers.0.mlp.act:x", "0 to 4"),
        ("layers.0.attn.pattern:0", "no node"),
        ("token:'a'", "or one token as it is: token:"),
        ("token:z", "0 to 4"),
    ],
)
def test_a_wrong_node_is_explained(text: str, message: str) -> None:
    with pytest.raises(SparselitError, match=message):
        parse_nodes(text, randomised(), "abcde")


def test_parts_are_named_as_they_are_printed() -> None:
    model = randomised(unembed_bias=True)
    edges = Edges.of(model)
    assert parse_nodes("token:c", model, "abcde") == ("token", [2])
    assert parse_nodes("layers.0.mlp.act:3,1", model) == ("layers.0.mlp.act", [3, 1])
    assert parse_nodes("layers.0.mlp.act", model) == ("layers.0.mlp.act", [0, 1, 2, 3, 4])
    assert parse_place("layers.0.attn.q.weight[5,2]", model, edges) == ("layers.0.attn.q.weight", 5, 2)
    assert parse_place("unembed.bias[3]", model, edges) == ("unembed.bias", 3, 0)
    assert parse_place("layers.0.mlp.act:3", model, edges) is None
    for wrong in ("layers.0.attn.q.weight[99,2]", "layers.0.attn.q.weight[5]", "unembed.bias[3,1]", "x.weight[1,2]"):
        with pytest.raises(SparselitError, match="no edge"):
            parse_place(wrong, model, edges)


# -- stability ---------------------------------------------------------------------------------------------------------


def test_a_rerun_is_repeatable_certified_and_differs_by_seed(opened: Loaded) -> None:
    kind, arguments = search_of(opened.circuit.search)
    assert kind is Auto
    runs = [rerun(opened, kind, arguments, seed) for seed in (0, 1, 2, 0)]
    assert runs[0] == runs[3]
    found = [run for run in runs if run["places"] is not None]
    assert len(found) >= 2
    for run in found:
        assert opened.problem.edges.find([tuple(place) for place in run["places"]]).sum() == len(run["places"])
    assert len({str(run["places"]) for run in runs[:3]}) > 1


def test_a_summary_counts_by_hand() -> None:
    def places(*numbers: int) -> list[list[Any]]:
        return [["w", n, 0] for n in numbers]

    runs = [
        {"seed": 0, "places": places(1, 2, 3), "holds": True},
        {"seed": 1, "places": places(1, 2), "holds": False},
        {"seed": 2, "places": places(2, 1), "holds": True},
        {"seed": 3, "places": None, "holds": False},
    ]
    found = summary(runs, [("w", 1, 0)])
    assert (found["runs"], found["found"], found["hold"], found["distinct"]) == (4, 3, 2, 2)
    assert found["sizes"] == [2, 2, 3]
    assert found["jaccard"]["mean"] == pytest.approx((2 / 3 + 2 / 3 + 1) / 3, abs=1e-6)
    assert found["jaccard"]["least"] == pytest.approx(2 / 3, abs=1e-6)
    assert found["jaccard"]["own"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3, abs=1e-6)
    assert found["core"] == {"all": 2, "90 %": 2}
    assert found["frequency"] == [["w", 1, 0, 3], ["w", 2, 0, 3], ["w", 3, 0, 1]]
    assert summary([runs[3]], [])["sizes"] is None


def test_only_searches_of_sparselit_are_taken_from_a_file() -> None:
    record = some_circuit().search
    assert search_of(record, "GroupTesting") == (GroupTesting, {})
    for path in ("os.system", "evil.Auto", "sparselit.circuits.search.base.Search"):
        with pytest.raises(SparselitError, match="none of sparselit's"):
            search_of(replace(record, class_path=path))
    with pytest.raises(SparselitError, match="there are Attribution, Auto"):
        search_of(record, "Nonsense")


def test_an_unfinished_rerun_is_no_result(opened: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Auto, "shrink", stop)
    with pytest.raises(KeyboardInterrupt):
        rerun(opened, Auto, {}, 0)
