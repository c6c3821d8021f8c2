"""Attacks on a model whose weakness is known: an average that another quotation mark outweighs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sparselit.circuits import Bound, discover, load, write_circuit
from sparselit.circuits.loaded import Loaded
from sparselit.circuits.use.attack import Settings, attack
from sparselit.circuits.use.prompts import Domain, unanswered
from sparselit.errors import SparselitError
from tests.cli.test_show_verify import DOUBLE, SINGLE, texts, wired_model


def first_quote(text: str) -> str:
    return next(character for character in text if character in "'\"")


@pytest.fixture(scope="module")
def circuit(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """The model of ``show``, whose heads average: two marks of the other kind outweigh the first one."""
    path = tmp_path_factory.mktemp("attacked") / "step=7.json"
    model, behaviour = wired_model(), texts()
    record = discover(model, behaviour, [Bound("task_loss", at_most=0.15)], ablation="zero")
    write_circuit(path, record, model, behaviour)
    return load(path)


def domain_of(circuit: Loaded) -> Domain:
    """The task's form, where a mark may stand anywhere."""
    domain = Domain.of(circuit.behaviour, first_quote)
    pairs = domain.pairs.clone()
    pairs[:, [SINGLE, DOUBLE]] = pairs[[SINGLE, DOUBLE]] = True
    return Domain(
        domain.vocabulary, domain.first, torch.ones(7, dtype=torch.bool), pairs, domain.answers, 2, 6, first_quote
    )


def test_the_circuit_shows_where_the_model_fails_and_random_moves_hardly_do(circuit: Loaded) -> None:
    found = attack(circuit, domain_of(circuit), Settings(prompts=20, steps=6, width=16))
    by = {outcome.method: outcome for outcome in found.outcomes}
    assert by["circuit"].success > 0.9
    assert by["circuit"].both == by["circuit"].n  # every failure is one that the circuit predicts
    assert by["random"].asked == 0
    assert by["circuit"].success > 1.5 * by["random"].success
    assert len(found.found) == by["circuit"].both
    words = circuit.behaviour.vocabulary
    for row, right in found.found:
        text = "".join(words[token] for token in row)
        assert words[right] == first_quote(text)
        examples = unanswered([row])
        assert int(circuit.engine.answers_of(circuit.model, examples).argmax()) != right
    assert 2 <= len(found.shortest) <= min(len(row) for row, _ in found.found)
    assert found.exploited[0][0] in {removal.unit for removal in circuit.circuit.certificate.removals}


def test_the_same_seed_finds_the_same_and_other_models_are_asked(circuit: Loaded) -> None:
    settings = Settings(prompts=6, steps=3, width=8)
    runs = [attack(circuit, domain_of(circuit), settings, {"twin": circuit.model}, ("circuit",)) for _ in range(2)]
    assert runs[0] == runs[1]
    (outcome,) = runs[0].outcomes
    assert outcome.transfer == {"twin": round(outcome.success, 6)}


def test_every_move_is_a_prompt_of_the_task(circuit: Loaded) -> None:
    domain = Domain.of(circuit.behaviour, first_quote)
    found = attack(circuit, domain, Settings(prompts=8, steps=4, width=8))
    for row, _ in found.found:
        examples = unanswered([row])
        assert bool(domain.looks_valid(examples.tokens, examples.length))


def test_without_a_rule_there_is_no_attack(circuit: Loaded, tmp_path: Path) -> None:
    with pytest.raises(SparselitError, match="rule"):
        attack(circuit, Domain.of(circuit.behaviour), Settings())
