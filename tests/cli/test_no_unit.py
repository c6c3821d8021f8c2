"""A circuit that holds no unit of its granularity: it is minimal, and every command has an answer to it.

Two kinds: the empty set, which does a task whose answer never changes; and weights outside of all heads and layers, of
which none is a unit where whole heads or layers are removed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from sparselit.circuits import search as searches
from sparselit.circuits.criterion import Bound
from sparselit.circuits.discover import discover
from sparselit.circuits.files import read_circuit, write_circuit
from sparselit.circuits.run.ablation import Kind
from sparselit.circuits.run.granularity import Granularity
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.verify import verify
from sparselit.cli.commands.verify import verdict_lines
from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from tests.cli.test_show_verify import run

WORDS, LENGTH, ANSWER = 6, 4, 2
#: Every search by name.
SEARCHES = {
    name: part
    for name, part in vars(searches).items()
    if isinstance(part, type) and issubclass(part, searches.Search) and part is not searches.Search
}
GRANULARITIES, ABLATIONS = get_args(Granularity), get_args(Kind)
#: Kind of circuit, granularity and ablation.
CELLS = [
    *(("empty", granularity, ablation) for granularity in GRANULARITIES for ablation in ABLATIONS),
    *(("outside", granularity, ablation) for granularity in ("head", "layer") for ablation in ABLATIONS),
]
#: What each command is given, and the exit codes that an answer may have; drawing and verifying have their own tests.
COMMANDS: dict[str, tuple[list[str], set[int]]] = {
    "show": (["show", "CIRCUIT", "--no-picture"], {0}),
    "story": (["story", "CIRCUIT"], {0}),
    "intervene": (["intervene", "CIRCUIT", "--ablate", "embed:0"], {0}),
    "hypotheses": (["hypotheses", "CIRCUIT", "--draws", "20"], {0, 1}),
    "stability": (["stability", "CIRCUIT", "--runs", "2"], {0}),
    "audit": (["audit", "CIRCUIT", "--n", "1"], {0}),
    "diff": (["diff", "CIRCUIT", "CIRCUIT"], {0}),
    "union": (["union", "CIRCUIT", "CIRCUIT"], {0}),
    "history": (["history", "RUN", "--no-picture"], {0}),
}


def wired(kind: str) -> Transformer:
    """Answers always the same through its last bias, or repeats the last token past all layers."""
    model = Transformer(
        WORDS, LENGTH, n_layers=1, d_model=8, n_heads=2, d_mlp=8, norm="none", positions="none", unembed_bias=True
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.01 * torch.randn(parameter.shape, generator=generator))
        if kind == "empty":
            model.get_parameter("unembed.bias")[ANSWER] = 10.0
        else:
            for word in range(WORDS):
                model.embed.token.weight[word, word] = 3.0
                model.unembed.weight[word, word] = 4.0
    return model.eval()


def behaviour(kind: str) -> Behaviour:
    """Disjoint splits of random prompts."""
    prompts = torch.cartesian_prod(*[torch.arange(WORDS)] * LENGTH)
    prompts = prompts[torch.randperm(len(prompts), generator=torch.Generator().manual_seed(0))]
    splits = {}
    for i, split in enumerate(("discovery", "selection", "report")):
        tokens = prompts[40 * i : 40 * (i + 1)]
        answer = torch.full((40,), ANSWER) if kind == "empty" else tokens[:, -1]
        corrupted = torch.cat([tokens[:, :-1], (tokens[:, -1:] + 1) % WORDS], dim=1)
        splits[split] = Examples(
            tokens, torch.full((40,), LENGTH), answer, (answer + 1) % WORDS, corrupted, torch.zeros(40).long()
        )
    return Behaviour(splits, tuple("abcdef"), ("all",), {"class_path": "Mine", "init_args": {}})


def found(folder: Path, kind: str, granularity: Any, ablation: str) -> Path:
    """The run folder with a circuit at step 7."""
    model, examples = wired(kind), behaviour(kind)
    # Under zero ablation a bias is a unit like a weight; a bound that guessing meets makes it superfluous.
    at_most = 3.0 if (granularity, ablation) == ("weight", "zero") else 0.15
    circuit = discover(model, examples, [Bound("task_loss", at_most=at_most)], ablation, granularity=granularity)
    assert circuit.certificate.complete
    assert circuit.certificate.removals == ()
    path = folder / "circuits" / "step=7.json"
    for step in (6, 7):
        write_circuit(path.with_name(f"step={step}.json"), circuit, model, examples)
    (folder / "config.yaml").write_text("{}\n")
    return path


@pytest.fixture(scope="module")
def circuits(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> dict[tuple[str, str, str], Path]:
    return {cell: found(tmp_path_factory.mktemp("run") / "version_0", *cell) for cell in CELLS}


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_every_command_has_an_answer(circuits, cell, capsys) -> None:
    path, failed = circuits[cell], {}
    for command, (argv, codes) in COMMANDS.items():
        given = [str(path) if word == "CIRCUIT" else str(path.parents[1]) if word == "RUN" else word for word in argv]
        code, out, err = run(capsys, *given)
        if code not in codes or not out.strip():
            failed[command] = (code, out, err)
    assert not failed


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_discovery_and_verify_agree(circuits, cell, capsys) -> None:
    verdict = verify(circuits[cell])
    assert verdict["false_claims"] == []
    assert verdict["holds"]
    assert verdict["minimal"]
    certificate = read_circuit(circuits[cell]).certificate
    assert certificate.complete
    assert verdict["units"] == len(certificate.removals) == 0
    unit = {"weight": "edge"}.get(cell[1], cell[1])
    _, shown, _ = run(capsys, "show", str(circuits[cell]), "--no-picture")
    for text in (shown, "\n".join(verdict_lines(verdict))):
        assert f"there is no {unit} in it" in " ".join(text.split())


@pytest.mark.parametrize("kind", ["empty", "outside"])
def test_a_circuit_without_a_unit_is_drawn(circuits, kind, tmp_path, capsys) -> None:
    for command, place in (("show", circuits[kind, "head", "zero"]), ("history", circuits[kind, "head", "zero"])):
        picture = tmp_path / f"{command}.png"
        argv = [command, str(place if command == "show" else place.parents[1]), "--output", str(picture)]
        assert run(capsys, *argv)[0] == 0
        assert picture.stat().st_size > 1000


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("kind", ["empty", "outside"])
def test_every_search_ends_without_a_unit(kind, search) -> None:
    bounds = [Bound("task_loss", at_most=0.15)]
    problem = Problem.of(wired(kind), behaviour(kind).splits["discovery"], bounds, "mean", "head")
    found = SEARCHES[search]().run(problem)
    assert found.complete
    assert found.removals == {}
    assert problem.works(found.kept)


def test_a_missing_unit_is_no_empty_certificate(circuits, capsys) -> None:
    """An edge of which the certificate says nothing is a false claim, as ever."""
    path = circuits["outside", "head", "zero"]
    content = json.loads(path.read_text())
    content["certificate"]["granularity"] = "weight"
    other = path.with_name("step=8.json")
    other.write_text(json.dumps(content))
    code, out, _ = run(capsys, "verify", str(other), "--json")
    assert code == 1
    assert "certificate.removals" in json.loads(out)["false_claims"]
    other.unlink()
