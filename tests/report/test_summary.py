"""The page that a person reads after a run, from its result and the files of its loggers."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparselit.report.summary import summary
from sparselit.runs.result import Circuits, Density, Machine, Result, Seconds, Steps
from tests.runs import example

FOLDER = Path("runs/quotes/version_0")


def page(result: Result) -> str:
    text = summary(result, FOLDER)
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_the_page_says_what_the_result_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir(parents=True)
    (FOLDER / "events.out.tfevents.1").touch()
    text = page(example.result())
    for line in (
        "# quotes/version_0",
        "- task        Quotes",
        "- model       SparseTransformer, 820 parameters",
        "- training    1,200 steps, 1034.5 s; ended by trainer.max_steps",
        "- machine     AVX512, 1 thread, cpu, 32-true; torch 2.9.0, lightning 2.6.4,",
        "- checkpoint  runs/quotes/version_0/checkpoints/step=1200.ckpt",
        "- summary     runs/quotes/version_0/summary.md",
        "report               all        99.50 %   98.50 - 100.00 %    1,000",
        "- size         44 edges, 30 nodes, 12 free",
        "- task_loss    0.1200, to be ≤ 0.15 (report split, n 1,000)",
        "- accuracy     0.9800, to be ≥ 0.9 (report split, n 1,000)",
        "- certificate  no single edge can go",
        "- ablation     mean, means over the discovery split",
        "- null         300 edges needed in random order",
        "- file         runs/quotes/version_0/circuits/step=100.json",
        "- discovery    7.0 s in 2 searches, 1 % of the run's time",
        "sparselit fit --config runs/quotes/version_0/config.yaml",
        "sparselit fit --ckpt_path runs/quotes/version_0",
        "tensorboard --logdir runs",
        "sparselit verify runs/quotes/version_0/circuits/step=100.json",
    ):
        assert line in text.splitlines(), line
    assert "problem" not in text
    assert "density    " not in text.split("## Density")[0]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("mine/version_0/events.out.tfevents.1", "tensorboard --logdir runs/quotes/version_0"),
        ("mine/version_0/metrics.csv", "- curves      runs/quotes/version_0/mine/version_0/metrics.csv"),
        ("wandb/offline-run-1/x", "wandb sync runs/quotes/version_0/wandb/offline-run-1"),
        (None, None),
    ],
    ids=["tensorboard of a user", "csv", "wandb", "none"],
)
def test_curves_are_where_the_logger_has_put_them(file, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if file is not None:
        (FOLDER / file).parent.mkdir(parents=True)
        (FOLDER / file).touch()
    lines = page(example.result()).splitlines()
    assert [text for text in lines if "curves" in text or text.startswith(("tensorboard", "wandb"))][-1:] == (
        [line] if line else []
    )


def test_a_density_that_was_not_reached_is_named_beside_its_target() -> None:
    missed = Density(0.5, 0.5, 0.02, 0.4512345, ())
    assert "- density     0.4512 reached, target 0.02 (of the sparsified tensors)\n" in page(
        example.result(density=missed)
    )
    text = page(example.result(density=Density(0.5, 0.5, 0.02, 0.0200001, ())))
    assert "target" not in text


def test_a_run_that_ended_before_its_steps_says_why_and_what_was_asked() -> None:
    stopped = example.result(steps=Steps(2000, 300), ended="interrupted", seconds=Seconds(3.21, 0.0))
    assert "- training    300 steps, 3.2 s; interrupted (2,000 asked)\n" in page(stopped)
    early = example.result(steps=Steps(None, 300), ended="early_stopping")
    assert "- training    300 steps, 1034.5 s; ended by early stopping\n" in page(early)


def test_problems_are_lines_of_their_own() -> None:
    text = page(example.result(problems=("mlp.up keeps 20 of at most 10 entries", "another " * 20)))
    lines = text.splitlines()
    assert "- problem     mlp.up keeps 20 of at most 10 entries" in lines
    assert sum(line.startswith("- problem ") for line in lines) == 2


def test_of_a_mixture_every_task_has_its_circuit() -> None:
    found = example.circuit(task="a"), example.circuit(task="b", complete=False, edges=11)
    text = page(example.result(circuits=example.circuits(*found, edges=22.0, overlap=0.125, reason="b: none")))
    for line in (
        "- task         b",
        "- certificate  NONE, some edges may not be needed",
        "- all          22.0 edges, geometric mean of 2 circuits",
        "- overlap      12.5 % of the edges of two circuits, mean of all pairs",
        "- circuit      none found by the last search: b: none",
        "# check every claim of the circuit of b",
    ):
        assert line in text.splitlines(), line


def test_where_nothing_was_sought_or_found_the_page_says_no_more() -> None:
    assert "## Circuit" not in page(example.result(circuits=None))
    none = page(example.result(circuits=Circuits(0, "no step was searched", None, None, ())))
    assert "- circuit  none found: no step was searched" in none
    several = page(example.result(machine=Machine("p", "DEFAULT", 2, "A GPU", 2, "bf16-mixed")))
    assert "- machine     DEFAULT, 2 threads, 2 processes, A GPU, bf16-mixed; torch" in several
