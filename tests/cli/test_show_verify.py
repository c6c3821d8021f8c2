"""``sparselit show`` and ``sparselit verify``, on the circuit of a model wired by hand."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparselit.circuits.criterion import Bound
from sparselit.circuits.discover import discover
from sparselit.circuits.files import write_circuit
from sparselit.circuits.verify import verify
from sparselit.cli import main
from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer

VOCABULARY = ("a", "b", "'", '"', " ", "\n", "$")
SINGLE, DOUBLE = 2, 3
NAME = "step=7.json"


def wired_model() -> Transformer:
    """Repeats the quotation mark a text begins with, beside weak random weights.

    Quote -> channel 0 or 1 -> value channel -> channel 2 or 3 -> logit.
    """
    model = Transformer(len(VOCABULARY), 6, n_layers=1, d_model=8, n_heads=2, d_mlp=8, norm="none")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = 0.01 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (torch.rand(parameter.shape, generator=generator) < 0.2))
        for channel, token in ((0, SINGLE), (1, DOUBLE)):
            value = 5 * channel  # channel 0 of head 0, channel 1 of head 1
            model.embed.token.weight[token, channel] = 1.5
            model.get_parameter("layers.0.attn.v.weight")[value, channel] = 2.0
            model.get_parameter("layers.0.attn.o.weight")[2 + channel, value] = -4.0
            model.unembed.weight[token, 2 + channel] = -3.0
    return model


def texts() -> Behaviour:
    """Disjoint splits of texts of three to six characters, each with both quotation marks."""
    rng = random.Random(0)
    bodies: dict[tuple[int, ...], None] = {}
    while len(bodies) < 150:
        bodies[tuple(rng.choice((0, 1, 4, 5, 6)) for _ in range(rng.randint(2, 5)))] = None
    every = list(bodies)
    splits = {"discovery": every[:50], "selection": every[50:90], "report": every[90:]}
    task = {"class_path": "sparselit.tasks.Quotes", "init_args": {"seed": 0}}
    strata = ("no space", "with a space")
    return Behaviour({split: examples(part) for split, part in splits.items()}, VOCABULARY, strata, task)


def examples(bodies: list[tuple[int, ...]]) -> Examples:
    rows = []
    for body in bodies:
        padded = [*body, *[0] * (5 - len(body))]
        for quote, other in ((SINGLE, DOUBLE), (DOUBLE, SINGLE)):
            rows.append(([quote, *padded], 1 + len(body), quote, other, [other, *padded], int(4 in body)))
    return Examples(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def with_circuit(folder: Path) -> Path:
    """The folder, with a circuit at step 7 in it."""
    model, behaviour = wired_model(), texts()
    criterion = [Bound("task_loss", at_most=0.15), Bound("accuracy", at_least=0.99)]
    write_circuit(folder / NAME, discover(model, behaviour, criterion, ablation="zero"), model, behaviour)
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    return with_circuit(tmp_path_factory.mktemp("found"))


@pytest.fixture
def path(found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the circuit in the working directory."""
    shutil.copytree(found, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path(NAME)


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    code = 0
    try:
        main(argv)
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


# ---------------------------------------------------------------- verify


def test_an_untouched_circuit_holds_and_is_minimal(path, capsys):
    code, out, err = run(capsys, "verify", str(path))
    assert code == 0
    assert err == ""
    assert "holds        yes" in out
    assert "minimal      yes" in out
    assert "8 edges, 14 nodes, 0 free" in out
    assert max(map(len, out.splitlines())) <= 80


def test_json_is_exactly_what_the_library_returns(path, capsys):
    code, out, _ = run(capsys, "verify", str(path), "--json")
    verdict = json.loads(out)
    assert code == 0
    assert verdict == verify(path)
    assert verdict["holds"] is verdict["minimal"] is True
    assert verdict["false_claims"] == []
    assert verdict["n"] == 120
    assert verdict["still_necessary_on_report"] == verdict["edges"] == 8


def superfluous(content: dict[str, Any]) -> None:
    """Add one weak weight of the model that the circuit does not need."""
    table = wired_model().embed.token.weight.detach()
    row, column = next((r, c) for r, c in table.nonzero().tolist() if abs(table[r, c]) < 0.1)
    content["edges"].insert(2, ["embed.token.weight", row, column, float(table[row, column])])


def test_a_superfluous_edge_makes_it_not_minimal(path, capsys):
    edit(path, superfluous)
    code, out, _ = run(capsys, "verify", str(path), "--json")
    assert code == 1
    assert json.loads(out)["minimal"] is False
    code, out, _ = run(capsys, "verify", str(path))
    assert code == 1
    assert "minimal      NO" in out


def in_evidence(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        part = content
        for key in keys[:-1]:
            part = part[key]
        assert part[keys[-1]] != value
        part[keys[-1]] = value

    return change


TAMPERINGS = {
    "a deleted edge": (lambda c: c["edges"].pop(), "criterion"),
    "a changed weight": (lambda c: c["edges"][3].__setitem__(3, 2.1), "edges[3].weight"),
    "an edge that the model lacks": (lambda c: c["edges"][0].__setitem__(1, 5), "edges[0]"),
    "an edited accuracy": (in_evidence("evidence", "held_out", "accuracy", value=0.99), "evidence.held_out.accuracy"),
    "an edited criterion value": (in_evidence("criterion", 0, "value", value=0.001), "criterion[0].value"),
    "an edited certificate row": (
        in_evidence("certificate", "removals", 1, 1, "task_loss", value=9.0),
        "certificate.removals[1]",
    ),
    "a missing certificate row": (lambda c: c["certificate"]["removals"].pop(), "certificate.removals"),
    "an edited margin": (in_evidence("certificate", "min_margin", value=2.0), "certificate.min_margin"),
    "an edited size": (in_evidence("size", "edges", value=7), "size.edges"),
    "an edited count of free parameters": (in_evidence("size", "free", value=3), "size.free"),
    "an edited node": (in_evidence("nodes", "embed", value=[0, 4]), "nodes.embed"),
    "an edited null": (
        in_evidence("evidence", "nulls", "random_circuits", "meet_criterion", value=3),
        "evidence.nulls.random_circuits.meet_criterion",
    ),
    "an edited necessity": (
        in_evidence("evidence", "necessity", "still_necessary", value=7),
        "evidence.necessity.still_necessary",
    ),
    "an edited complement": (in_evidence("evidence", "complement", "task_loss", value=7.0), "evidence.complement"),
    "an edited stratum": (
        in_evidence("evidence", "held_out", "strata", "with a space", "n", value=5000),
        "evidence.held_out.strata",
    ),
    "an edited share unexplained": (in_evidence("evidence", "unexplained", value=0.2), "evidence.unexplained"),
    "an edited comparison inside": (
        in_evidence("evidence", "faithfulness", "random_halves", "task_loss_worst", value=7.0),
        "evidence.faithfulness.random_halves.task_loss_worst",
    ),
    "an invented flag": (in_evidence("evidence", "flags", value=["attention"]), "evidence.flags"),
    "another model's hash": (in_evidence("model", "hash", value="0" * 64), "model.hash"),
}


@pytest.mark.parametrize(("change", "claim"), TAMPERINGS.values(), ids=TAMPERINGS)
def test_a_false_claim_is_named(path, capsys, change, claim):
    edit(path, change)
    code, out, _ = run(capsys, "verify", str(path))
    assert code == 1
    assert "holds        NO" in out
    named = [line.removeprefix("  false").strip() for line in out.splitlines() if line.startswith("  false")]
    assert any(name.startswith(claim) for name in named), named


def test_an_edited_prompt_file_is_named(path, capsys):
    prompts = Path("prompts/report.jsonl")
    lines = prompts.read_text(encoding="utf-8").splitlines(keepends=True)
    prompts.write_text("".join(lines[2:]), encoding="utf-8")
    code, out, _ = run(capsys, "verify", str(path))
    assert code == 1
    assert "task.splits.report.sha256" in out


def test_edited_weights_outside_the_circuit_are_named(path, capsys):
    from safetensors.torch import load_file, save_file

    weights = path.with_suffix(".safetensors")
    tensors = load_file(weights)
    tensors["layers.0.mlp.up.weight"] = tensors["layers.0.mlp.up.weight"].clone()
    tensors["layers.0.mlp.up.weight"][0, 0] += 1
    save_file(tensors, weights)
    code, out, _ = run(capsys, "verify", str(path))
    assert code == 1
    assert "model.hash" in out


def truncate(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8")[:-200], encoding="utf-8")


def remove_weights(path: Path) -> None:
    path.with_suffix(".safetensors").unlink()


def truncate_weights(path: Path) -> None:
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:500])


def next_version(path: Path) -> None:
    edit(path, lambda content: content.update(version=5))


UNREADABLE = {
    "truncated": (truncate, "not JSON"),
    "gone": (Path.unlink, "cannot read the circuit"),
    "another version": (next_version, "version 5"),
    "without edges": (lambda path: edit(path, lambda content: content.pop("edges")), "'edges'"),
}
INCOMPLETE = {
    "without weights": (remove_weights, "safetensors"),
    "with half of the weights": (truncate_weights, "safetensors"),
    "without prompts": (lambda path: Path("prompts/selection.jsonl").unlink(), "selection.jsonl"),
}


@pytest.mark.parametrize(("damage", "said"), [*UNREADABLE.values(), *INCOMPLETE.values()])
def test_verify_refuses_what_it_cannot_read_in_one_line(path, capsys, damage, said):
    damage(path)
    code, out, err = run(capsys, "verify", str(path), "--json")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_progress_goes_to_a_terminal_only(path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    _, out, err = run(capsys, "verify", str(path), "--json")
    assert json.loads(out)["holds"]
    assert err.endswith("\r\x1b[K")


# ---------------------------------------------------------------- show


def test_the_table_fits_80_columns_and_tells_the_circuit(path, capsys):
    code, out, _ = run(capsys, "show", str(path), "--no-picture")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert not path.with_suffix(".png").exists()
    for fact in ("Quotes", "task_loss ≤ 0.15", "accuracy ≥ 0.99", "n 120", "8 edges, 14 nodes, 0 free", "zero",
                 "100.00 % right (96.90 - 100.00 %)", "8/8 edges", "with a space", "0/20 meet"):  # fmt: skip
        assert fact in out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert any(row.startswith('" double quote → 1 1.5000 ') for row in rows)
    assert any(row.startswith("1 → head 1 · ch 1 2.0000 ") for row in rows)
    assert any(row.startswith("head 1 · ch 1 → 3 -4.0000 ") for row in rows)


def test_the_first_line_says_whether_the_size_is_controlled(path, capsys):
    _, out, _ = run(capsys, "show", str(path), "--no-picture")
    assert "not controlled" in out.splitlines()[0]
    bounds = [{"metric": "task_loss", "at_most": 0.1}]
    row = {"bounds": bounds, "task_loss": 0.09, "complete": True, "places": [], "split": "discovery", "n": 100}
    none = {**row, "edges": None, "task_loss": 0.7}
    searched = {"nonsense_target": {**row, "edges": 12}, "untrained_model": none}
    edit(path, lambda content: content["evidence"]["nulls"].update(searched=searched))
    _, out, _ = run(capsys, "show", str(path), "--no-picture")
    assert "controlled by 2 searches" in out.splitlines()[0]
    assert "nonsense target: 12 edges" in out
    assert "untrained model: no circuit found" in out
    assert max(map(len, out.splitlines())) <= 80


def as_version_1(content: dict[str, Any]) -> None:
    """What the first version had: no look inside, no flags, no intervals of losses."""
    evidence = content["evidence"]
    for part in ("faithfulness", "dark_matter", "flags"):
        del evidence[part]
    for null in ("magnitude_matched", "searched"):
        del evidence["nulls"][null]
    new = ("task_loss_interval", "answer_loss_interval", "kl_interval", "task_loss_max", "margin_min")
    for score in (evidence["full_model"], evidence["held_out"], evidence["complement"]):
        for name in new:
            del score[name]
    for part in ("made_on", "for_the_record", "seal"):
        del content[part]
    content["version"] = 1


def test_a_file_of_version_1_is_shown_and_verified_as_far_as_it_goes(path, capsys):
    edit(path, as_version_1)
    assert run(capsys, "show", str(path), "--no-picture")[0] == 0
    code, out, _ = run(capsys, "verify", str(path), "--json")
    assert code == 0, out
    edit(path, lambda content: content["evidence"]["held_out"].update(accuracy=0.9))
    code, out, _ = run(capsys, "verify", str(path), "--json")
    assert code == 1
    assert "evidence.held_out.accuracy" in json.loads(out)["false_claims"]


def test_a_missing_part_of_the_evidence_is_named(path, capsys):
    edit(path, lambda content: content["evidence"].pop("flags"))
    code, _, err = run(capsys, "verify", str(path))
    assert code == 2
    assert "evidence.flags" in err


def test_the_loss_in_the_table_is_the_certificate_row_of_that_edge(path, capsys):
    content = json.loads(path.read_text(encoding="utf-8"))
    _, out, _ = run(capsys, "show", str(path), "--no-picture")
    shown = [line.split()[-2:] for line in out.splitlines() if line.startswith("  ") and " → " in line]
    rows = [row[1]["task_loss"] for row in content["certificate"]["removals"]]
    assert shown == [[f"{e[3]:.4f}", f"{loss:.4f}"] for e, loss in zip(content["edges"], rows, strict=True)]


def test_a_long_table_fits_80_columns_too(path, capsys):
    def stretch(content: dict[str, Any]) -> None:
        content["task"]["vocabulary"][SINGLE] = "a token that is far longer than a column of this table"
        content["task"]["class_path"] = "somebody.s.very_long_package_name.tasks." + "T" * 90
        content["evidence"]["held_out"]["strata"]["s" * 90] = content["evidence"]["full_model"]
        content["evidence"]["out_of_distribution"] = content["evidence"]["full_model"]
        content["ablation"].update(kind="mean", distribution="discovery", per="all")
        content["criterion"][0]["value"] = 12345.678

    edit(path, stretch)
    code, out, _ = run(capsys, "show", str(path), "--no-picture")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80


def test_the_picture_stands_beside_the_circuit(path, capsys):
    code, out, _ = run(capsys, "show", str(path))
    assert code == 0
    assert "picture      step=7.png" in out
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_the_picture_goes_where_output_says(path, capsys, name, start):
    code, _, _ = run(capsys, "show", str(path), "--output", name)
    assert code == 0
    assert Path(name).read_bytes().startswith(start)
    assert not path.with_suffix(".png").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--output", "a.txt"], ".pdf"),
        (["--output", "a.png", "--no-picture"], "exclude"),
        (["--output", "nowhere/a.png"], "cannot write the picture"),
        (["--outputs", "a.png"], "unrecognized"),
    ],
)
def test_show_refuses_impossible_options_in_one_line(path, capsys, options, said):
    code, _, err = run(capsys, "show", str(path), *options)
    assert code == 2
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("damage", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_show_refuses_what_it_cannot_read_in_one_line(path, capsys, damage, said):
    damage(path)
    code, out, err = run(capsys, "show", str(path))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("part", ["held_out", "nulls", "necessity", "unexplained"])
def test_show_says_which_evidence_is_missing(path, capsys, part):
    edit(path, lambda content: content["evidence"].pop(part))
    code, _, err = run(capsys, "show", str(path))
    assert code == 2
    assert part in err
    assert err.count("\n") == 1


def test_show_needs_no_weights(path, capsys):
    remove_weights(path)
    assert run(capsys, "show", str(path))[0] == 0
