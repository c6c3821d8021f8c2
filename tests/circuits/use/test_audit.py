"""The audit of single decisions: attribution, flips and typicality against slow references; its file is checked."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparselit.circuits import NaiveEngine, Subnetwork, load
from sparselit.circuits.loaded import Loaded
from sparselit.circuits.use.audit import Auditor, read_audit
from sparselit.circuits.use.audit.audit import check
from sparselit.circuits.use.audit.flips import activation_flips, token_flips
from sparselit.circuits.use.audit.removal import parts_of, removals
from sparselit.circuits.use.audit.typical import Typicality, nodes_inside
from sparselit.circuits.use.prompts import Domain
from sparselit.errors import SparselitError
from sparselit.report.audit import decision_blocks, model_blocks
from sparselit.report.document import Paragraph, code, html_page, markdown
from tests.circuits.models import random_subset, randomised, some_examples
from tests.cli.test_show_verify import NAME, with_circuit

QUOTE = "'ab $"


def first_quote(text: str) -> str:
    return next(character for character in text if character in "'\"")


@pytest.fixture(scope="module")
def circuit(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(with_circuit(tmp_path_factory.mktemp("audited")) / NAME)


@pytest.mark.parametrize("seed", range(5))
def test_removal_is_the_model_with_the_weights_set_to_zero(seed: int) -> None:
    model, examples = randomised(seed, density=0.3, norm="none"), some_examples(5, seed)
    engine = NaiveEngine.of(model)
    network = Subnetwork(engine, random_subset(engine.everything(), 0.5, seed))
    found = removals(network, examples, examples.answer, examples.wrong)
    edges, nodes = parts_of(network)
    assert found.names == (*edges, *nodes)
    rows = torch.arange(5)
    for i, numbers in enumerate([*edges.values(), *nodes.values()]):
        for kept, margin in ((network.kept, found.circuit), (engine.everything(), found.full)):
            other, without = deepcopy(model), kept.clone()
            without[numbers] = False
            with torch.no_grad():
                for name, mask in engine.edges.masks(without).items():
                    other.get_parameter(name).mul_(mask)
                logits = other(examples.tokens, examples.length - 1)
            assert torch.allclose(margin[i], logits[rows, examples.answer] - logits[rows, examples.wrong], atol=1e-5)


def test_exactly_the_quotation_mark_flips_and_the_rule_agrees(circuit: Loaded) -> None:
    domain = Domain.of(circuit.behaviour, first_quote)
    words = circuit.behaviour.vocabulary
    tokens = [words.index(c) for c in QUOTE]
    found = token_flips(circuit.naive, domain, tokens, words.index("'"), words.index('"'))
    assert (found.changed, found.flipped, found.justified, found.missed) == (1, 1, 1, 0)
    (flip,) = found.flips
    assert flip.tokens[0] == flip.answer == flip.right == words.index('"')


def test_the_smallest_change_of_an_activation_flips_and_half_of_it_does_not(circuit: Loaded) -> None:
    words, model = circuit.behaviour.vocabulary, circuit.model
    tokens = [words.index(c) for c in QUOTE]
    typicality = Typicality(circuit, Domain.of(circuit.behaviour))
    found = activation_flips(model, tokens, words.index("'"), nodes_inside(circuit), typicality.scale.tolist())
    assert found
    for flip in found:
        for share, flipped in ((1.0, True), (0.5, False)):

            def edit(x: torch.Tensor, flip=flip, share=share) -> torch.Tensor:  # type: ignore[no-untyped-def]
                x = x.clone()
                x[:, flip.position, flip.node[1]] += share * flip.change
                return x

            with torch.no_grad(), model.sites.edited(after={flip.node[0]: edit}):
                answer = int(model(torch.tensor([tokens]))[0, -1].argmax())
            assert (answer != words.index("'")) == flipped


def test_held_out_prompts_are_typical_and_other_ones_are_not(circuit: Loaded) -> None:
    typicality = Typicality(circuit, Domain.of(circuit.behaviour))
    report = typicality.of(circuit.behaviour.splits["report"])
    assert sum(place.tokens_p <= 0.2 for place in report) <= 0.35 * len(report)
    discovery = typicality.of(circuit.behaviour.splits["discovery"])
    assert all(place.tokens == 0 and place.inside == 0 and place.tokens_p == 1 for place in discovery)
    words = circuit.behaviour.vocabulary
    tokens = torch.tensor([[words.index(c) for c in "'''\""]])
    odd = circuit.behaviour.splits["report"].select(slice(0, 1))._replace(tokens=tokens, corrupted=tokens,
                                                                          length=torch.tensor([4]))  # fmt: skip
    assert typicality.of(odd)[0].unusual


def test_a_decision_of_the_wired_model_is_explained(circuit: Loaded) -> None:
    decision = Auditor([circuit], [first_quote]).audit([QUOTE], circuit.path.parent).decisions[0]
    assert (decision.answer, decision.right, decision.verdict) == ("'", "'", "explained")
    assert decision.accounts[0].edges[0].flips_circuit


def test_a_circuit_that_does_not_give_the_answer_explains_nothing(circuit: Loaded) -> None:
    less = circuit.kept.clone()
    less[circuit.edges.numbers([("unembed.weight", circuit.behaviour.vocabulary.index("'"), 2)])] = False
    broken = Loaded(circuit.engine, less, circuit.circuit, circuit.behaviour, circuit.path)
    assert Auditor([broken], [None]).audit([QUOTE], Path()).decisions[0].verdict == "not explained"


def test_circuits_of_different_models_are_refused(circuit: Loaded, tmp_path: Path) -> None:
    folder = with_circuit(tmp_path)
    other = load(folder / NAME)
    changed = Loaded(
        other.engine,
        other.kept,
        replace(other.circuit, model=replace(other.circuit.model, hash="0")),
        other.behaviour,
        other.path,
    )
    with pytest.raises(SparselitError, match="another model"):
        Auditor([circuit, changed], [None, None])


def test_the_file_is_recomputed_and_every_edit_is_named(circuit: Loaded, tmp_path: Path) -> None:
    folder = with_circuit(tmp_path)
    audit = Auditor([load(folder / NAME)], [first_quote]).audit([QUOTE, '"b$'], folder)
    path = folder / "a.json"
    path.write_text(text := json.dumps(audit.as_json()))
    stated, false = check(path, lambda _: first_quote)
    assert false == []
    assert stated == audit == read_audit(path)
    content = json.loads(text)
    content["decisions"][0]["margin"] += 0.01
    content["decisions"][1]["accounts"][0]["edges"][0][1] += 0.01
    content["circuits"][0]["sha256"] = "0" * 64
    path.write_text(json.dumps(content))
    assert check(path, lambda _: first_quote)[1] == [
        "circuits[0].sha256",
        "decisions[0].margin",
        "decisions[1].accounts[0].edges[0][1]",
    ]
    content["decisions"][0]["verdict"] = "perfect"
    path.write_text(json.dumps(content))
    with pytest.raises(SparselitError, match=r"decisions\[0\]\.verdict"):
        read_audit(path)


def test_pages_hold_no_script_and_no_address_and_a_prompt_stays_text(circuit: Loaded) -> None:
    audit, records = Auditor([circuit], [first_quote]).audit([QUOTE, '"b$'], Path()), [circuit.circuit]
    for blocks in (decision_blocks(audit, audit.decisions[0], records), model_blocks(audit, records)):
        page = html_page(blocks)
        assert not any(word in page for word in ("<script", "http://", "https://", "url(", "@import", "src="))
        assert markdown(blocks).startswith("# ")
    assert "claims no compliance" in markdown(model_blocks(audit, records))
    assert "<b>" not in html_page([Paragraph(code("<b>`|\n"))])
