"""The suite's command: it goes on where it was, reads what runs say, and sees numbers drift."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

from benchmarks.records import Records
from sparselit.cli.commands.configs import is_overlay
from sparselit.runs.result import Density
from tests.runs import example

SOURCE = Path(__file__).parents[2] / "benchmarks" / "suite.py"
HEADER = '# Can it?\n# measured: {"seed": 0, "accuracy": 0.99, "density": 0.05, "edges": 40}\n'
RESULT = example.result(circuits=None, density=Density(0.04, 0.03326, None, None, ()))


@pytest.fixture
def suite(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("suite", SOURCE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("one", "two"):
        (tmp_path / "configs").mkdir(exist_ok=True)
        (tmp_path / "configs" / f"{name}.yaml").write_text(f"{HEADER}data: {name}\n")
    (tmp_path / "configs" / "unmeasured.yaml").write_text("# Can it?\ndata: three\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(module, "RECORD", tmp_path / "suite.jsonl")
    monkeypatch.setattr(module, "PAGE", tmp_path / "suite.md")
    return module


def found(**values):
    row = {"accuracy": 0.99, "density": 0.05, "edges": 40, "nodes": 30, "circuit": 0.98, "null": 300, "seconds": 9.0}
    return {**row, "out_of_distribution": None, **values}


def test_an_interrupted_suite_goes_on_and_a_changed_configuration_runs_again(suite, tmp_path, monkeypatch):
    ran = []

    def run(name, seed, root):
        if name == "two" and len(ran) == 1:
            raise KeyboardInterrupt
        ran.append(name)
        return found()

    monkeypatch.setattr(suite, "run", run)
    with pytest.raises(KeyboardInterrupt):
        suite.main([])
    with (tmp_path / "suite.jsonl").open("a") as file:
        file.write('{"configuration": "two", "se')  # killed while writing
    ran.append("")
    assert suite.main([]) == 0
    assert ran == ["one", "", "two"]
    (tmp_path / "configs" / "one.yaml").write_text(f"{HEADER}data: other\n")
    (tmp_path / "configs" / "two.yaml").write_text(f"# another comment\n{HEADER}data: two  # as before\n")
    assert suite.main(["--table"]) == 0
    assert "| one |" not in (tmp_path / "suite.md").read_text()  # of another configuration
    suite.main([])
    assert ran == ["one", "", "two", "one"]
    rows = [line for line in (tmp_path / "suite.md").read_text().splitlines() if line.startswith(("| one", "| two"))]
    assert rows == [f"| {name} | 0 | 99.00 % | 0.0500 | 40 | 30 | 98.00 % |  | 300 | 9 |" for name in ("one", "two")]


def test_an_earlier_result_is_shown_with_a_star_until_the_run_is_repeated(suite, tmp_path, monkeypatch):
    Records(suite.RECORD).append({"configuration": "one", "seed": 0, "yaml": suite.EARLIER, **found(edges=77)})
    suite.main(["--table"])
    assert "| one * | 0 | 99.00 % | 0.0500 | 77 |" in suite.PAGE.read_text()
    monkeypatch.setattr(suite, "run", lambda name, seed, root: found())
    suite.main([])
    assert "| one | 0 | 99.00 % | 0.0500 | 40 |" in suite.PAGE.read_text()
    assert "77" not in suite.PAGE.read_text()


def test_the_numbers_of_a_run_are_read_from_its_folder(suite, tmp_path):
    (tmp_path / "result.json").write_text(RESULT.text())
    row = {"accuracy": 0.995, "out_of_distribution": 0.3155, "density": 0.03326, "seconds": 1034.5, "edges": None}
    assert suite.collect(tmp_path) == row
    assert "| none | none |" in suite.table([{**row, "configuration": "one", "seed": 0, "yaml": "0"}])


def test_the_circuits_of_a_run_are_the_certified_ones_of_the_last_step_of_each_task(suite, tmp_path):
    of_a = [example.circuit(task="a", step=step, edges=edges) for step, edges in ((50, 99), (100, 16))]
    of_b = example.circuit(task="b", edges=4, nodes=9, accuracy=0.96, null_edges=100)
    of_c = example.circuit(task="c", edges=1, complete=False, minimal=False)
    several = example.result(circuits=example.circuits(*of_a, of_b, of_c))
    (tmp_path / "result.json").write_text(several.text())
    row = suite.collect(tmp_path)
    assert (row["edges"], row["nodes"], row["circuit"], row["null"]) == (8.0, 16.4, 0.97, 173)
    (tmp_path / "result.json").write_text(example.result(circuits=example.circuits(of_c)).text())
    assert suite.collect(tmp_path)["edges"] is None
    (tmp_path / "result.json").write_text(example.result().text())
    assert suite.collect(tmp_path)["edges"] == 44


def test_nightly_fails_where_a_number_has_drifted_by_more_than_a_fifth(suite, monkeypatch, capsys):
    monkeypatch.setattr(suite, "run", lambda name, seed, root: found(edges=47, density=0.0401))
    assert suite.main(["--nightly"]) == 0
    monkeypatch.setattr(suite, "run", lambda name, seed, root: found(edges=49 if name == "two" else None))
    assert suite.main(["--nightly"]) == 1
    assert "one: edges None, header 40 (9.0 s)\ntwo: edges 49, header 40 (9.0 s)\n" in capsys.readouterr().out


def test_nightly_compares_edges_with_the_range_of_the_header_where_it_has_one(suite, tmp_path, monkeypatch, capsys):
    for name in ("one", "two"):
        header = HEADER.replace('"edges": 40', '"edges": [14, 37]')
        (tmp_path / "configs" / f"{name}.yaml").write_text(f"{header}data: {name}\n")
    monkeypatch.setattr(suite, "run", lambda name, seed, root: found(edges=14 if name == "two" else 37))
    assert suite.main(["--nightly"]) == 0
    for edges in (13, 38, None):
        monkeypatch.setattr(suite, "run", lambda name, seed, root, edges=edges: found(edges=edges))
        assert suite.main(["--nightly", "--only", "one"]) == 1
        assert f"one: edges {edges}, header [14, 37] (9.0 s)\n" in capsys.readouterr().out
    monkeypatch.setattr(suite, "run", lambda name, seed, root: found(edges=20, accuracy=0.7))
    assert suite.main(["--nightly", "--only", "one"]) == 1
    assert capsys.readouterr().out == "one: accuracy 0.7, header 0.99 (9.0 s)\n"


def test_nightly_goes_on_after_a_run_that_failed_and_fails_itself(suite, monkeypatch, capsys):
    def run(name, seed, root):
        if name == "one":
            raise RuntimeError("one, seed 0: no such key")
        return found()

    monkeypatch.setattr(suite, "run", run)
    assert suite.main(["--nightly"]) == 1
    assert capsys.readouterr().out == "one, seed 0: no such key\ntwo: as measured (9.0 s)\n"
    with pytest.raises(SystemExit) as stop:
        suite.main([])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "one, seed 0: no such key\n"


def test_the_command_of_the_header_is_run_and_an_overlay_only_nightly(suite, tmp_path, monkeypatch, capsys):
    header = HEADER.replace("# Can it?", "# Overlay. Less.\n#\n#   sparselit fit --config one --config less")
    (tmp_path / "configs" / "less.yaml").write_text(header)
    ran = []

    def process(command, **_):
        ran.append(command[command.index("fit") :])
        folder = tmp_path / "results" / "nightly" / "runs" / "one" / f"version_{len(ran)}"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(RESULT.text())
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(suite.subprocess, "run", process)
    assert suite.main(["--nightly", "--only", "less", "two"]) == 1
    assert ran[0][:7] == ["fit", "--config", "one", "--config", "less", "--seed_everything", "0"]
    said = capsys.readouterr().out
    assert "less: density 0.03326, header 0.05; edges None, header 40 (1034.5 s)" in said
    assert "two: no line `#   sparselit fit --config …` in the header" in said
    monkeypatch.setattr(suite, "run", lambda name, seed, root: ran.append(name) or found())
    suite.main([])
    assert ran[1:] == ["one", "two"]
    assert "less" not in (tmp_path / "suite.md").read_text()


def test_every_shipped_experiment_has_a_measured_line_and_every_configuration_a_command(suite):
    paths = list(SOURCE.parents[1].glob("configs/*.yaml"))
    assert len(paths) > 30
    for path in paths:
        assert suite._COMMAND.search(path.read_text()), path
        header = suite.measured(path)
        if header is None:  # overlays may have one; the dense model's size is compared in benchmarks/sparse_dense.py
            language = "PythonCode" in path.read_text()  # of a language model the loss stands there
            assert language or is_overlay(path) or path.stem == "quotes_dense", path
        else:
            assert {"seed", "accuracy", "density", "edges"} <= header.keys(), path
            assert json.dumps(header) in path.read_text()
