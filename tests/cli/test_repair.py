"""``sparselit repair`` and ``sparselit edit``, as a user runs them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sparselit.circuits.circuit import model_hash
from sparselit.cli import main
from sparselit.model.transformer import Transformer

from .test_show_verify import NAME, wired_model, with_circuit
from .test_use_circuits import Outcome, refused, sparselit


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    """A circuit, and a checkpoint of its model in which the double quote's way is cut."""
    folder = with_circuit(tmp_path_factory.mktemp("repaired"))
    model = wired_model()
    with torch.no_grad():
        model.get_parameter("layers.0.attn.o.weight")[3, 5] = 0.0
    state = {f"transformer.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": model.config, "global_step": 7}, folder / "faulty.ckpt")
    return folder


@pytest.fixture
def folder(found: Path, tmp_path: Path) -> Path:
    shutil.copytree(found, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_errors_are_mended_and_the_edit_is_applied_and_undone_to_the_bit(folder: Path) -> None:
    done = sparselit(folder, "repair", NAME, "--ckpt_path", "faulty.ckpt", "--split", "discovery", "-o", "e.json")
    assert done.code == 0, done.err
    assert "of 100 prompts are answered wrongly" in done.out
    edit = json.loads((folder / "e.json").read_text())
    assert len(edit["deltas"]) == 1
    assert edit["scores"]["specificity"]["report"]["after"]["accuracy"] == 1
    first = (folder / "faulty.ckpt").read_bytes()
    assert sparselit(folder, "edit", "check", "e.json", "--ckpt_path", "faulty.ckpt").code == 0
    assert sparselit(folder, "edit", "apply", "e.json", "--ckpt_path", "faulty.ckpt", "-o", "good.ckpt").code == 0
    assert sparselit(folder, "edit", "undo", "e.json", "--ckpt_path", "good.ckpt", "-o", "back.ckpt").code == 0
    assert (folder / "faulty.ckpt").read_bytes() == first
    models = [Transformer.from_checkpoint(folder / f"{name}.ckpt") for name in ("faulty", "good", "back")]
    faulty, good, back = (model_hash(model.state_dict()) for model in models)
    assert faulty == back == edit["before"]
    assert good == edit["after"]
    assert torch.load(folder / "good.ckpt", weights_only=True)["global_step"] == 7
    refused(sparselit(folder, "edit", "apply", "e.json", "--ckpt_path", "good.ckpt", "-o", "x.ckpt"), "another model")
    refused(sparselit(folder, "edit", "apply", "e.json", "--ckpt_path", "faulty.ckpt", "-o", "good.ckpt"), "exists")


def test_a_fault_is_traced_to_the_weight_and_its_neighbours(folder: Path) -> None:
    done = sparselit(folder, "diagnose", NAME, "--ckpt_path", "faulty.ckpt", "--split", "discovery")
    assert done.code == 0, done.err
    assert "fault        layers.0.attn.o.weight[3,5] is zero" in done.out


def test_edits_by_hand_are_composed_and_compared(folder: Path) -> None:
    for i, name in enumerate("ab"):
        part = f"unembed.weight[{i},0]=0.5"
        assert sparselit(folder, "repair", NAME, "--set", part, "-o", f"{name}.json").code == 0
    composed = sparselit(folder, "edit", "compose", "a.json", "b.json", "--ckpt_path", NAME, "-o", "both.json")
    assert "2 weights changed" in composed.out
    assert sparselit(folder, "edit", "diff", "a.json", "both.json").out.splitlines()[1].startswith("the same in both")
    assert sparselit(folder, "edit", "apply", "both.json", "--ckpt_path", NAME, "-o", "both.ckpt").code == 0
    edited = Transformer.from_checkpoint(folder / "both.ckpt").unembed.weight
    before = load_file((folder / NAME).with_suffix(".safetensors"))["unembed.weight"]
    assert (edited != before).nonzero().tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            (
                "repair",
                NAME,
                "--split",
                "report",
            ),
            ("nothing to repair",),
        ),
        (
            (
                "repair",
                NAME,
                "--split",
                "train",
            ),
            ("splits are",),
        ),
        (
            (
                "repair",
                NAME,
                "--set",
                "layers.0.mlp.act:1=0",
            ),
            ("--set takes a weight",),
        ),
        (
            (
                "repair",
                NAME,
                "--scale",
                "layers.0.mlp.out:1=0",
            ),
            ("no weight reads",),
        ),
        (
            (
                "repair",
                NAME,
                "--set",
                "unembed.weight[0,0]",
            ),
            ("needs a number",),
        ),
        (
            (
                "edit",
                "show",
                NAME,
            ),
            ("no edit of version",),
        ),
        (
            (
                "edit",
                "apply",
                "none.json",
                "--ckpt_path",
                NAME,
                "-o",
                "x.ckpt",
            ),
            ("none.json",),
        ),
    ],
)
def test_mistakes_are_answered_in_one_line(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: tuple[str, ...],
    expected: tuple[str, ...],
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as stop:
        main(list(argv))
    refused(Outcome(int(stop.value.code or 0), *capsys.readouterr()), *expected)


def test_an_attack_writes_what_repair_can_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["attack", str(folder / NAME), "--n", "4", "--steps", "2", "--width", "4", "-o", str(folder / "adv.jsonl")])
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[1:5]] == ["circuit", "random", "model", "gradient"]
    assert max(map(len, out.replace(str(folder), "").splitlines())) <= 80
    rows = [json.loads(line) for line in (folder / "adv.jsonl").read_text().splitlines()]
    assert all(set(row) == {"prompt", "answer"} for row in rows)
