"""Bad input: one or two lines on stderr, exit code 2, nothing written."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch

from .conftest import Command, files_in

Q = ("fit", "--config", "quick.yaml")

CASES = {
    "no arguments": ((), "no command given; see `sparselit --help`"),
    "unknown command": (("fti",), "unknown command 'fti'; did you mean 'fit'?"),
    "fit alone": (("fit",), "fit needs --config FILE"),
    "missing config": (
        ("fit", "--config", "quotes_synthetc"),
        "--config quotes_synthetc: no such file; did you mean 'quotes_synthetic'?",
    ),
    "config is a folder": (("fit", "--config", "."), "this is a folder"),
    "no task": (("fit", "--trainer.max_steps", "3", "--model.d_model", "8"), "fit needs --config FILE"),
    "no length": (("fit", "--data", "Parity", "--trainer.max_steps", "-1"), "trainer.max_steps is missing"),
    "unknown trainer key": ((*Q, "--trainer.max_stps", "3"), "'trainer.max_stps'; did you mean 'trainer.max_steps'?"),
    "abbreviated key": ((*Q, "--trainer.max_step", "3"), "'trainer.max_step'; did you mean 'trainer.max_steps'?"),
    "key without its group": ((*Q, "--max_steps", "3"), "'max_steps'; did you mean 'trainer.max_steps'?"),
    "unknown group": ((*Q, "--trainr.max_steps", "3"), "unknown key 'trainr.max_steps'; did you mean 'trainer'?"),
    "unknown model key": (
        (*Q, "--model.d_modl", "3"),
        "model.d_modl: SparseTransformer has no such argument; did you mean 'd_model'?",
    ),
    "unknown data key": (
        (*Q, "--data.bach_size", "3"),
        "data.bach_size: Parity has no such argument; did you mean 'batch_size'?",
    ),
    "unknown sparsity key": (
        (*Q, "--sparsity.density.too", "1"),
        "sparsity.density.too: Schedule has no such argument; did you mean 'to'?",
    ),
    "unknown task": (
        ("fit", "--data", "Quots"),
        "data: no class 'Quots' of kind LightningDataModule; did you mean 'Quotes'?",
    ),
    "unknown module": (
        ("fit", "--data", "no.such.Task"),
        "data: 'no.such.Task' cannot be imported: No module named 'no'",
    ),
    "unknown callback": (
        (*Q, "--trainer.callbacks+=SparsityMonitr"),
        "no class 'SparsityMonitr' of kind Callback; did you mean 'SparsityMonitor'?",
    ),
    "sparsity without class": (
        ("fit", "--data", "Parity", "--trainer.max_steps", "5", "--sparsity.density", "1"),  # no recipe beneath
        "sparsity: name a class_path first: AcdcSparsity, AnnealedSparsity",
    ),
    "stray word": ((*Q, "word"), "unexpected argument 'word'"),
    "density 0": ((*Q, "--sparsity.density", "0"), "density must lie in (0, 1], got 0"),
    "density 2": ((*Q, "--sparsity.density", "2"), "density must lie in (0, 1], got 2"),
    "target density 2": ((*Q, "--sparsity.density.to", "2"), "density.to must lie in (0, 1], got 2"),
    "density abc": (
        (*Q, "--sparsity.density", "abc"),
        "sparsity.density: expected a number or a mapping (Schedule) or a list of Schedule, got 'abc'",
    ),
    "negative steps": ((*Q, "--trainer.max_steps", "-5"), "trainer.max_steps must be at least 1, got -5"),
    "zero steps": ((*Q, "--trainer.max_steps", "0"), "trainer.max_steps must be at least 1, got 0"),
    "steps as a word": ((*Q, "--trainer.max_steps", "many"), "trainer.max_steps: expected a whole number, got 'many'"),
    "impossible floor": (
        (*Q, "--sparsity.rules", "[{match: '*attn.q.weight', density: 0.1, floor: 4}]"),
        "transformer.layers.0.attn.q.weight",
    ),
    "unmatched glob": (
        (*Q, "--sparsity.rules", "[{match: 'nothing*', density: 0.1}]"),
        "'nothing*' matches no parameter",
    ),
    "linked key": (
        (*Q, "--model.vocab_size", "5"),
        "model.vocab_size is set by data.vocab_size; take it out of the command line",
    ),
    "impossible model": ((*Q, "--model.d_model", "9"), "model.d_model 9 is not a multiple of n_heads 2"),
    "unknown accelerator": (
        (*Q, "--trainer.accelerator", "abacus"),
        "trainer: You selected an invalid accelerator name",
    ),
    "Lightning's own refusal": (
        (*Q, "--trainer.val_check_interval", "0.5"),
        "trainer: val_check_interval should be an integer",
    ),
    "missing checkpoint": ((*Q, "--ckpt_path", "no.ckpt"), "checkpoint 'no.ckpt' does not exist"),
    "nothing to resume": ((*Q, "--ckpt_path", "last"), "--ckpt_path last: no checkpoint in runs/quick"),
    "test without checkpoint": (("test", "--config", "quick.yaml"), "test needs --ckpt_path FILE"),
    "predict without config": (
        ("predict", "--ckpt_path", "last", "--prompt", "0"),
        "needs --config, which names the run",
    ),
    "density without file": (("density",), "the following arguments are required: CKPT"),
    "density of a missing file": (("density", "no.ckpt"), "checkpoint 'no.ckpt' does not exist"),
    "density of a text": (
        ("density", "quick.yaml"),
        "'quick.yaml' cannot be read: it is truncated, damaged or not a checkpoint",
    ),
    "damaged checkpoint outside of a run": (
        ("test", "--ckpt_path", "quick.yaml"),
        "'quick.yaml' cannot be read: it is truncated, damaged or not a checkpoint",
    ),
    "option of a plain command": (("tasks", "--al"), "unrecognized arguments: --al; see `sparselit tasks --help`"),
}


@pytest.mark.parametrize(("argv", "expected"), CASES.values(), ids=CASES.keys())
def test_bad_input_is_refused_in_two_lines_before_anything_is_written(
    sparselit: Command, folder: Path, argv: tuple[str, ...], expected: str
) -> None:
    before = files_in(folder)
    code, out, err = sparselit(*argv)
    assert code == 2
    assert expected in err
    *others, last = err.splitlines()
    assert last.startswith("error: ")
    assert len(others) <= 1
    assert out == ""
    assert files_in(folder) == before


LONG = "x" * 5000


@pytest.mark.parametrize(
    "argv",
    [
        ("fit", "--config", "quick.yaml", "--trainer.max_steps", str([0] * 2000)),
        ("fit", "--config", "quick.yaml", "--data", LONG),
        ("fit", "--config", "quick.yaml", "--model.positions", LONG),
        ("fit", "--config", "quick.yaml", f"--{LONG}", "1"),
        ("fit", "--config", LONG),
        ("test", "--ckpt_path", LONG),
        ("show", LONG),
        (LONG,),
    ],
    ids=["number", "class", "choice", "key", "configuration", "checkpoint", "circuit", "command"],
)
def test_what_somebody_gives_is_repeated_in_part_only(sparselit: Command, argv: tuple[str, ...]) -> None:
    code, _, err = sparselit(*argv)
    assert code == 2
    assert len(err) < 1000
    assert len(err.splitlines()) <= 2


YAML_CASES = {
    "unknown top key": (
        "data: Parity\ntrainr: {max_steps: 3}\n",
        "unknown key 'trainr.max_steps'; did you mean 'trainer'?",
    ),
    "unknown key": ("data: Parity\ntrainer: {max_stps: 3}\n", "'trainer.max_stps'; did you mean 'trainer.max_steps'?"),
    "unknown class": ("data: {class_path: Quots}\n", "data: no class 'Quots'"),
    "unknown rule key": (
        "data: Parity\nsparsity: {class_path: AnnealedSparsity, init_args: {density: 0.1, rules: [{mtch: a}]}}",
        "sparsity.rules.mtch: Rule has no such argument; did you mean 'match'?",
    ),
    "choice": (
        "data: Parity\nmodel: {loss_on: anser}\n",
        "model.loss_on: expected one of 'answer', 'all', got 'anser'",
    ),
    "broken YAML": ("data: Parity\ntrainer: {max_steps: 3\n", "bad.yaml, line 3: not valid YAML"),
    "not a mapping": ("hello\n", "bad.yaml must hold keys such as data: and model:"),
    "linked key": (
        "data: Parity\nmodel: {max_length: 9}\n",
        "model.max_length is set by data.max_length; take it out of bad.yaml",
    ),
}


@pytest.mark.parametrize(("text", "expected"), YAML_CASES.values(), ids=YAML_CASES.keys())
def test_bad_yaml_is_refused_with_the_place_named(sparselit: Command, folder: Path, text: str, expected: str) -> None:
    (folder / "bad.yaml").write_text(text)
    code, _, err = sparselit("fit", "--config", "bad.yaml")
    assert code == 2
    assert err.startswith("error: ")
    assert expected in err
    assert not (folder / "runs").exists()


class _Trap:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("executed",)


def test_a_foreign_checkpoint_is_refused_and_not_executed(sparselit: Command, folder: Path) -> None:
    torch.save({"state_dict": {}, "trap": _Trap()}, folder / "trap.ckpt")
    (folder / "trap.pkl").write_bytes(pickle.dumps(_Trap()))
    torch.save([1, 2], folder / "list.ckpt")
    for name in ("trap.ckpt", "trap.pkl", "list.ckpt"):
        for argv in (("density", name), ("fit", "--config", "quick.yaml", "--ckpt_path", name)):
            code, _, err = sparselit(*argv)
            assert code == 2
            assert err.startswith("error: ")
            assert name in err
    assert not (folder / "executed").exists()
    assert not (folder / "runs").exists()


def test_a_bug_is_not_dressed_up_as_a_mistake_of_the_user(sparselit: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparselit.modules import SparseTransformer

    def broken(self: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(SparseTransformer, "configure_optimizers", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        sparselit("fit", "--config", "quick.yaml")
