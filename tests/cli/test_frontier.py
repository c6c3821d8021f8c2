"""``sparselit frontier`` on the results of a sweep that are made up."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path

import pytest

from sparselit.runs.result import Density, Loss, TensorDensity
from sparselit.sweep.points import points
from sparselit.sweep.store import Record, Store
from tests.runs import example

from .conftest import Command

DESCRIPTION = {"grid": {"model.d_model": [8, 16], "sparsity.density.to": [0.1, 0.5], "seed_everything": [0, 1, 2]}}


@pytest.fixture
def sweep(folder: Path) -> Path:
    """A larger model has a lower loss at as many edges; a sparser one fewer edges and a higher loss."""
    store = Store(folder / "sweeps/made")
    store.folder.mkdir(parents=True)
    store.claim({})
    for point in points(DESCRIPTION, {}):
        width, density, seed = point.settings.values()
        loss = 0.4 / width + 0.01 / density + 0.001 * seed
        edges = round(100 * density) + seed
        numel = 100 * width
        tensors = (TensorDensity("w", (100, width), numel, round(numel * density), density),)
        result = example.result(
            seed=seed,
            losses=(Loss("val", 9.0, None), Loss("report", loss, None)),
            density=Density(density, density, density, density, tensors),
            circuits=example.circuits(example.circuit(edges=edges, complete=seed != 2), edges=float(edges)),
        )
        run = store.runs / point.id / "version_0"
        run.mkdir(parents=True)
        (run / "result.json").write_text(result.text())
        store.of(point).mkdir(parents=True)
        store.write(point, Record(dict(point.settings), 0, "", f"runs/{point.id}/version_0", 1.0))
    return store.folder


def test_it_says_what_the_runs_support_and_what_they_do_not(sparselit: Command, sweep: Path) -> None:
    code, out, err = sparselit("frontier", str(sweep))
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    text = " ".join(out.split())
    assert "At 800 parameters the sparsest setting has 0.2" in text
    assert "From 800 to 1,600 parameters the frontier moves outwards" in text
    assert "4 of 12 runs have a circuit without certificate" in text
    assert "no circuit" not in text
    assert {line.split()[0] for line in out.splitlines() if line.startswith("*d")} == {"*d_model=16"}
    assert (sweep / "frontier.png").read_bytes().startswith(b"\x89PNG")


def test_rows_filters_and_other_axes(sparselit: Command, sweep: Path) -> None:
    command = ("frontier", str(sweep), "--csv", "--size", "nonzeros", "--capability", "error")
    rows = list(csv.DictReader(io.StringIO(sparselit(*command).out)))
    assert len(rows) == 4
    assert {row["seeds"] for row in rows} == {"3"}
    assert [float(row["error"]) for row in rows] == pytest.approx([0.005] * 4)
    (row, other) = csv.DictReader(io.StringIO(sparselit(*command, "--filter", "model.d_model=8").out))
    assert {row["parameters"], other["parameters"]} == {"800"}
    assert sparselit(*command, "--filter", "model.d_model=9")[0] == 2


def test_a_page_names_each_run_with_its_command_and_loads_nothing(sparselit: Command, sweep: Path) -> None:
    pytest.importorskip("plotly")
    assert sparselit("frontier", str(sweep), "-o", "page.html")[0] == 0
    text = Path("page.html").read_text()
    ids = [point.id for point in points(DESCRIPTION, {})]
    assert all(f"sparselit fit --ckpt_path {sweep.relative_to(Path.cwd())}" in text or name in text for name in ids)
    assert "<script src=" not in text


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["nowhere"], "no folder of a sweep"),
        (["SWEEP", "-o", "x.gif"], "must end in one of"),
        (["SWEEP", "--filter", "x"], "KEY=VALUE"),
        (["SWEEP", "--size", "heads"], "invalid choice"),
    ],
)
def test_mistakes_are_answered_in_a_line(sparselit: Command, sweep: Path, argv: list[str], said: str) -> None:
    code, _, err = sparselit("frontier", *(str(sweep) if word == "SWEEP" else word for word in argv))
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_damaged_record_is_named(sparselit: Command, sweep: Path) -> None:
    path = next(itertools.islice(sweep.glob("points/*/point.json"), 1))
    path.write_text("{")
    code, _, err = sparselit("frontier", str(sweep))
    assert code == 2
    assert "point.json is damaged" in err
