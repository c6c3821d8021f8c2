"""The record of a circuit: what is written is what is read, and whatever is wrong in a file is named by its path."""

from __future__ import annotations

import copy
import json
import math
import types
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparselit.circuits.circuit import Circuit, KeptEdge, Measured, Size
from sparselit.circuits.claims import Certificate, Evidence, KeptPlace, Removal
from sparselit.circuits.criterion import METRICS, Bound
from sparselit.circuits.run.ablation import Ablation
from sparselit.errors import SparselitError
from tests.circuits.records import CONFIG, some_circuit, some_evidence, some_nulls, some_score, some_searched_null

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
BOUNDS = st.builds(lambda metric, value, least: Bound(metric, None if least else value, value if least else None),
                   st.sampled_from(list(METRICS)), NUMBERS, st.booleans())  # fmt: skip


def values_of(kind: Any, metadata: Mapping[str, Any] = types.MappingProxyType({})) -> st.SearchStrategy[Any]:
    """Any value of a type of the record, from the type alone."""
    origin, arguments = get_origin(kind), get_args(kind)
    if "names" in metadata:
        return st.dictionaries(st.sampled_from(metadata["names"]), NUMBERS)
    if origin is Annotated:
        return st.integers(0, 2**62)
    if origin in (Union, types.UnionType):
        inner = values_of(next(argument for argument in arguments if argument is not type(None)))
        return inner if "since" in metadata and not metadata["null"] else st.none() | inner
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        if arguments[1:] == (...,):
            return st.lists(values_of(arguments[0]), max_size=3).map(tuple)
        return st.tuples(*map(values_of, arguments))
    if origin in (dict, Mapping):
        return st.dictionaries(st.text(), values_of(arguments[1]), max_size=2)
    if kind is KeptPlace:
        return st.builds(KeptPlace, st.just("unembed.weight"), st.integers(0, 7), st.integers(0, 7))
    if kind is Bound:
        return BOUNDS
    if is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, tuple)):
        hints = get_type_hints(kind, include_extras=True)
        meta = {part.name: part.metadata for part in fields(kind)} if is_dataclass(kind) else {}  # type: ignore[arg-type]
        return st.builds(kind, **{name: values_of(hint, meta.get(name, {})) for name, hint in hints.items()})
    return {str: st.text(), bool: st.booleans(), int: st.integers(0, 2**62), float: NUMBERS}[kind]


def again(circuit: Circuit) -> Circuit:
    """Through the bytes of a file and back."""
    return Circuit.from_json(json.loads(json.dumps(circuit.as_json(), ensure_ascii=False, allow_nan=False)))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])
@given(evidence=values_of(Evidence), certificate=values_of(Certificate), size=values_of(Size))
def test_any_record_survives_its_file(evidence: Evidence, certificate: Certificate, size: Size) -> None:
    circuit = some_circuit(evidence=evidence, certificate=certificate, size=size)
    read = again(circuit)
    assert read == circuit
    assert json.dumps(read.as_json()) == json.dumps(circuit.as_json())


def full() -> Circuit:
    """A circuit with every part of the format."""
    searched = {
        "nonsense_target": some_searched_null(places=(KeptPlace("unembed.weight", 1, 2),)),
        "untrained_model": some_searched_null(edges=None),
    }
    return some_circuit(
        [["embed.token.weight", 2, 3, 1.5], ["layers.0.attn.v.weight", 5, 3, 1]],
        criterion=(Measured("task_loss", at_most=1, value=0.5), Measured("accuracy", at_least=0.5, value=1.0)),
        ablation=Ablation("mean"),
        nodes={"embed": (3,), "layers.0.attn.v": (5,), "token": (2,)},
        certificate=replace(some_circuit().certificate, removals=(Removal("embed.token.weight[2,3]", {"kl": 0.5}),)),
        evidence=some_evidence(
            nulls=some_nulls(searched=searched), out_of_distribution=some_score(), flags=("report",)
        ),
    )


CONTENT = json.loads(json.dumps(full().as_json()))
#: Below these, any JSON may stand.
FREE = (("model", "config"), ("task", "init_args"), ("search", "init_args"))
Steps = tuple[Any, ...]


def places(content: Any, at: Steps = ()) -> Iterator[Steps]:
    """Every place of the content, the root and what is free left out."""
    if at:
        yield at
    if at not in FREE:
        items = (
            content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
        )
        for step, part in items:
            yield from places(part, (*at, step))


def named(at: Steps) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at).removeprefix(".")


def put(at: Steps, value: Any) -> dict[str, Any]:
    """The content with something else at a place; without it where ``value`` is ``...``."""
    content = copy.deepcopy(CONTENT)
    part = content
    for step in at[:-1]:
        part = part[step]
    if value is ...:
        del part[at[-1]]
    else:
        part[at[-1]] = value
    return content


def value_at(at: Steps) -> Any:
    part: Any = CONTENT
    for step in at:
        part = part[step]
    return part


PLACES = [at for at in places(CONTENT) if at[0] not in ("format", "version", "for_the_record", "seal")]


def refused(content: Any) -> str:
    with pytest.raises(SparselitError) as caught:
        Circuit.from_json(content)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_content_has_every_part_of_the_format() -> None:
    assert len(PLACES) > 300
    assert Circuit.from_json(CONTENT) == full()
    assert Circuit.from_json(CONTENT).as_json() == CONTENT


@pytest.mark.parametrize(
    "wrong",
    [[["no"]], {"no": {}}, "no", 0.5, True, -1, math.nan, math.inf, 10**400, None],
    ids=lambda value: str(value)[:9],
)
def test_every_wrong_type_is_named_by_its_place(wrong: Any) -> None:
    for at in PLACES:
        value = value_at(at)
        like = isinstance(value, bool) == isinstance(wrong, bool) and (
            isinstance(wrong, type(value))
            or (isinstance(value, float | int) and wrong in (0.5, -1))
            or (named(at) == "evidence.dark_matter.kl" and wrong in (0.5, -1))  # null here, or a number
        )
        if like or (wrong is None and at[-1] in NULLABLE):
            continue  # the right type; whether the value is true is a matter of verify
        message = refused(put(at, wrong))
        # An element of [parameter, row, column, weight] is told as the whole row.
        assert named(at) in message or (named(at[:-1]) in message and isinstance(at[-1], int)), (at, message)


NULLABLE = {
    "out_of_distribution", "searched", "other_norm", "unexplained", "rescaled", "task_loss", "kl", "edges", "embed",
    "distribution", "per", "adversary", "broken_by",
}  # fmt: skip


def test_every_number_is_finite_and_every_count_a_whole_one() -> None:
    numbers = [at for at in PLACES if type(value_at(at)) in (int, float)]
    assert len(numbers) > 150
    for at in numbers:
        for wrong in (math.nan, -math.inf, 1e400, 10**400, True):
            assert named(at[:-1]) in refused(put(at, wrong)), at
    for at in numbers:
        if at[-1] in ("n", "edges", "nodes", "free", "runs", "draws", "meet_criterion", "median", "evaluations"):
            for wrong in (0.5, -1, 2**70):
                assert named(at) in refused(put(at, wrong))


def test_every_missing_and_every_unknown_field_is_named() -> None:
    optional = {"at_most", "at_least"}
    inside = ("nodes", "strata", "sufficiency", "activations", "attention", "sites", "residual", "searched", "splits",
              "other_ablations")  # fmt: skip
    for at in PLACES:
        owner = value_at(at[:-1]) if at[:-1] else CONTENT
        free = at[:-1] and (at[-2] in inside or at[:-1] in FREE)
        if isinstance(owner, dict) and not free and at[-1] not in optional and "removals" not in at:
            if at[-1].endswith("_worst") or (
                at[-2:-1] and at[-2] in ("nonsense_target", "untrained_model") and at[-1] in METRICS
            ):
                continue  # numbers by metric: which of them there are is a matter of verify
            message = refused(put(at, ...))
            assert named(at) in message, (at, message)
            assert "missing" in message
    for at in [(), *PLACES]:
        value = value_at(at)
        if isinstance(value, dict) and at not in FREE and "removals" not in at and not (at and at[-1] in inside):
            assert named((*at, "surprise")) in refused(put((*at, "surprise"), {}))


def test_what_the_configuration_has_not_is_refused_by_its_place() -> None:
    assert "edges[1]" in refused(put(("edges", 1), ["layers.0.attn.v.weight", 8, 0, 1.0]))
    assert "8 rows and 8 columns" in refused(put(("edges", 1), ["layers.0.attn.v.weight", 0, 8, 1.0]))
    assert "there is no layers.2.attn.v.weight" in refused(put(("edges", 1), ["layers.2.attn.v.weight", 0, 0, 1.0]))
    assert "biases[0]" in refused(put(("biases", 0), ["layers.0.attn.q.bias", 8, 1.0]))
    assert "nodes.embed" in refused(put(("nodes", "embed"), [8]))
    assert "nodes.nowhere" in refused(put(("nodes", "nowhere"), [0]))
    searched = ("evidence", "nulls", "searched", "nonsense_target", "places", 0)
    assert named(searched) in refused(put(searched, ["unembed.weight", 8, 0]))
    for key, value in (("n_layers", 10**9), ("d_model", 0), ("d_model", "8"), ("bias", 1), ("surprise", 1)):
        assert f"model.{key}" in refused(put(("model", "config"), {**CONFIG, key: value}))


def test_values_that_contradict_each_other_are_refused_by_their_place() -> None:
    assert "criterion[0]" in refused(put(("criterion", 0, "at_least"), 0.5))  # beside at_most
    assert "criterion[1]" in refused(put(("criterion", 1), {"metric": "accuracy", "value": 1.0}))
    assert "criterion metric 'no' is unknown" in refused(put(("criterion", 0, "metric"), "no"))
    assert "ablation.per" in refused(put(("ablation", "per"), None))  # which would mean all
    assert "ablation" in refused(put(("ablation", "kind"), "zero"))  # of which there are no means


@pytest.mark.parametrize("version", [0, 5, None, "2", 2.0, True])
def test_other_versions_are_refused(version: Any) -> None:
    assert f"version {version}" in refused({**CONTENT, "version": version})
    assert "format" in refused({**CONTENT, "format": "other"})
    assert "format" in refused([])


def test_a_file_of_the_first_version_is_read_and_written_as_it_is() -> None:
    content = copy.deepcopy(CONTENT)
    content["version"] = 1
    for part in ("made_on", "for_the_record", "seal"):
        del content[part]
    later = ("calibrated_loss", "task_loss_interval", "answer_loss_interval", "kl_interval", "task_loss_max",
             "margin_min")  # fmt: skip
    evidence = content["evidence"]
    for part in ("faithfulness", "dark_matter", "flags", "other_ablations", "adversary"):
        del evidence[part]
    for null in ("magnitude_matched", "searched"):
        del evidence["nulls"][null]
    scores = [evidence["full_model"], evidence["held_out"], *evidence["held_out"]["strata"].values()]
    for name in later:
        for score in scores:
            del score[name]
    circuit = Circuit.from_json(content)
    assert circuit.version == 1
    assert circuit.evidence.faithfulness is None
    assert circuit.evidence.nulls.searched is None
    assert circuit.as_json() == content
    assert "calibrated_loss" in refused({**content, "version": 2})


def test_free_parts_are_bounded_in_depth_and_finite() -> None:
    deep: Any = 0
    for _ in range(40):
        deep = [deep]
    assert "task.init_args.a" in refused(put(("task", "init_args"), {"a": deep}))
    assert "search.init_args.a" in refused(put(("search", "init_args"), {"a": math.nan}))
    kept = {"a": [1, None, True, {"b": "text"}, -1.5]}
    assert Circuit.from_json(put(("task", "init_args"), kept)).task.init_args == kept


def test_a_record_cannot_be_edited() -> None:
    circuit = full()
    for record, name in ((circuit, "size"), (circuit.size, "edges"), (circuit.evidence.held_out, "accuracy")):
        with pytest.raises(AttributeError):
            setattr(record, name, 0)
    assert circuit.weights == {
        ("embed.token.weight", 2, 3): 1.5,
        ("layers.0.attn.v.weight", 5, 3): 1,
        ("layers.0.attn.q.bias", 6, 0): 0.5,
    }
    assert circuit.edges[0] == KeptEdge("embed.token.weight", 2, 3, 1.5)
    assert circuit.places == list(circuit.weights)
