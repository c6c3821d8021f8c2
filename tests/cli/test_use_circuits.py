"""The commands that use a circuit, on one of a model wired by hand, as a user runs them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
from safetensors.torch import load_file, save_file

from sparselit.circuits.circuit import model_hash
from sparselit.cli import main

from .test_show_verify import NAME, with_circuit

SCRIPT = Path(sys.executable).with_name("sparselit")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    """A folder with a circuit at step 7."""
    return with_circuit(tmp_path_factory.mktemp("found"))


@pytest.fixture
def folder(found: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(found, tmp_path, dirs_exist_ok=True)
    return tmp_path


def sparselit(folder: Path, *argv: str) -> Outcome:
    """Run a command in ``folder``, in this process; nothing it prints is wider than 80 columns."""
    code, before = 0, Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            main(list(argv))
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os.chdir(before)
    outcome = Outcome(code, out.getvalue(), err.getvalue())
    assert max(map(len, outcome.out.splitlines()), default=0) <= 80, outcome.out
    return outcome


def refused(outcome: Outcome, *expected: str) -> None:
    """Exit code 2, one or two lines, nothing on standard output."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) <= 2
    for text in expected:
        assert text in outcome.err


# ---------------------------------------------------------------- hypotheses


def test_hypotheses_prints_three_verdicts_and_json_the_same(folder: Path) -> None:
    code, out, err = sparselit(folder, "hypotheses", NAME, "--draws", "19")
    assert err == ""
    assert "SUFFICIENT: task_loss" in out
    words = " ".join(out.split())
    assert "19 of 19 random circuits" in words
    assert "MINIMAL: 8 of 8 edges" in words
    assert "n 120" in words
    assert "rough" in words
    described = sparselit(folder, "hypotheses", NAME, "--draws", "19", "--json")
    found = json.loads(described.out)
    assert found["sufficiency"]["p"] == 0.05
    assert len(found["minimality"]["removals"]) == 8
    assert found["equivalence"]["verdict"].upper() in out
    passed = found["equivalence"]["verdict"] == "equivalent"
    assert code == described.code == (0 if passed else 1)


def test_hypotheses_refuses_what_cannot_be_tested(folder: Path) -> None:
    refused(sparselit(folder, "hypotheses", NAME, "--metric", "kl"), "task_loss, answer_loss, accuracy")
    refused(sparselit(folder, "hypotheses", NAME, "--draws", "3"), "3 random circuits cannot reach the level 0.05")
    refused(sparselit(folder, "hypotheses", "missing.json"), "missing.json")


# ---------------------------------------------------------------- story, intervene


def test_story_tells_what_a_node_reads_and_writes(folder: Path) -> None:
    code, out, err = sparselit(folder, "story", NAME, "layers.0.attn.v:0", "token:'", "layers.0.attn.out:2")
    assert (code, err) == (0, "")
    value, token, out_ = out.split("\n\n")
    words = " ".join(value.split())
    assert "value 0 of head 0, layer 0" in words
    assert "reads residual 0 (+2.0000), written by the embedding" in words
    assert "writes residual 2 (-4.0000), read by the unembedding" in words
    assert "»" in value
    assert "token ' single quote" in token
    assert "residual 0 (+1.5000), read by the attention of layer 0" in " ".join(token.split())
    strongest = [line for line in token.splitlines() if "»" in line]
    assert len(strongest) == 3
    assert all("»'«" in line and line.endswith("→ '") for line in strongest)
    assert "written by the attention of layer 0" in " ".join(out_.split())


def test_story_of_the_whole_circuit_names_each_node(folder: Path) -> None:
    out = sparselit(folder, "story", NAME, "--top", "0").out
    content = json.loads((folder / NAME).read_text())
    names = [f"{site}:{channel}" for site, channels in content["nodes"].items() for channel in channels]
    assert sorted(block.split()[0] for block in out.split("\n\n")) == sorted(names)


def test_story_refuses_wrong_nodes(folder: Path) -> None:
    refused(sparselit(folder, "story", NAME, "layers.0.attn.w:0"), "did you mean 'layers.0.attn.")
    refused(sparselit(folder, "story", NAME, "layers.0.attn.v:99"), "0 to 7")
    refused(sparselit(folder, "story", NAME, "layers.0.attn.v:3"), "the circuit has no node layers.0.attn.v:3")


def test_intervene_measures_what_a_removal_does(folder: Path) -> None:
    code, out, err = sparselit(folder, "intervene", NAME, "--scale", "layers.0.attn.v:0=0")
    assert (code, err) == (0, "")
    assert "Quotes" in out
    whole = json.loads(sparselit(folder, "intervene", NAME, "--scale", "layers.0.attn.v:0=0", "--json").out)["Quotes"]
    assert whole["before"]["accuracy"] == 1
    assert whole["after"]["task_loss"] > 10 * whole["before"]["task_loss"]  # one of the two quotes has lost its path
    assert f"{whole['after']['task_loss']:.4f}" in out
    circuit = json.loads(sparselit(folder, "intervene", NAME, "--scale", "circuit=0", "--json").out)["Quotes"]
    content = json.loads((folder / NAME).read_text())
    complement = content["evidence"]["complement"]  # the same thing, measured on another path
    assert circuit["after"]["task_loss"] == pytest.approx(complement["task_loss"], abs=1e-4)
    assert circuit["after"]["accuracy"] == complement["accuracy"]


def test_intervene_patches_and_ablates_and_tries_other_tasks(folder: Path, found: Path) -> None:
    shutil.copytree(found, folder / "other")
    done = sparselit(folder, "intervene", NAME, "--patch", "embed", "--tasks", f"other/{NAME}", "--json")
    effects = json.loads(done.out)
    assert list(effects) == ["Quotes", f"other/{NAME}"]
    for effect in effects.values():
        assert effect["after"]["wrong"] == 1  # the embedding holds everything that the prompt says
    edge = sparselit(folder, "intervene", NAME, "--scale", "unembed.weight[2,2]=0", "--ablate", "layers.0.attn.v:0,5")
    assert edge.code == 0
    assert "scale unembed.weight[2,2]=0" in edge.out


def test_intervene_finds_the_other_tasks_of_a_mixture(folder: Path, found: Path) -> None:
    for task in ("One", "Two"):
        shutil.copytree(found, folder / "run" / "circuits" / task)
    path = f"run/circuits/One/{NAME}"
    assert list(json.loads(sparselit(folder, "intervene", path, "--scale", "embed=0", "--json").out)) == ["One", "Two"]


def test_intervene_refuses_what_it_cannot_change(folder: Path) -> None:
    refused(sparselit(folder, "intervene", NAME), "--scale PART=X")
    refused(sparselit(folder, "intervene", NAME, "--scale", "layers.0.attn.v:0"), "needs a factor")
    refused(sparselit(folder, "intervene", NAME, "--scale", "layers.0.attn.x:0=1"), "no site is called")
    refused(sparselit(folder, "intervene", NAME, "--scale", "layers.0.attn.v.weight[99,0]=1"), "no edge")
    refused(sparselit(folder, "intervene", NAME, "--ablate", "unembed.weight[2,2]"), "--scale 'unembed.weight[2,2]=0'")
    refused(sparselit(folder, "intervene", NAME, "--scale", "token:'=0"), "is an input")


# ---------------------------------------------------------------- diff, history


def pruned(folder: Path, step: int, drop: int) -> None:
    """The circuit at another step, with one edge less."""
    content = json.loads((folder / NAME).read_text())
    del content["edges"][drop]
    (folder / f"step={step}.json").write_text(json.dumps(content))


def test_diff_counts_and_runs_the_sets(folder: Path) -> None:
    pruned(folder, 9, 0)
    code, out, err = sparselit(folder, "diff", NAME, "step=9.json")
    assert (code, err) == (0, "")
    assert "shared        7, Jaccard 0.88" in out
    content = json.loads(sparselit(folder, "diff", NAME, "step=9.json", "--json").out)
    edge = json.loads((folder / NAME).read_text())["edges"][0]
    assert content["first"] == [edge[:3]]
    assert content["second"] == []
    scores = content["scores"]
    assert scores["A"] == scores["A or B"]
    assert scores["B"] == scores["A and B"]
    assert scores["A"]["accuracy"] == 1 > scores["B"]["accuracy"]
    assert scores["B without A"]["edges"] == 0
    refused(sparselit(folder, "diff", NAME, "missing.json"), "missing.json")


def test_union_says_what_circuits_leave_dark_alone_and_together(folder: Path) -> None:
    """One that has lost an edge explains less alone, and with the other one as much as that."""
    content = json.loads((folder / NAME).read_text())
    content["edges"] = content["edges"][:-1]
    (folder / "less.json").write_text(json.dumps(content))
    code, out, err = sparselit(folder, "union", NAME, "less.json")
    assert (code, err) == (0, "")
    assert out.startswith("union         8 of ")
    assert "unexplained, report split, n 120" in out
    found = json.loads(sparselit(folder, "union", NAME, "less.json", "--json").out)
    assert found[""]["edges"] == 8
    assert found["less.json"]["edges"] == 7
    assert found["less.json"]["alone"]["task_loss"] > found["less.json"]["together"]["task_loss"]
    assert found["less.json"]["together"] == found[NAME]["alone"]


def test_union_refuses_circuits_of_other_weights(folder: Path) -> None:
    content = json.loads((folder / NAME).read_text())
    tensors = load_file((folder / NAME).with_suffix(".safetensors"))
    tensors["unembed.bias"] += 1
    save_file(tensors, folder / "other.safetensors")
    content["model"] |= {"weights": "other.safetensors", "hash": model_hash(tensors)}
    (folder / "other.json").write_text(json.dumps(content))
    refused(sparselit(folder, "union", NAME, "other.json"), "other.json belongs to other weights")


def test_weights_and_prompts_that_changed_under_a_circuit_are_noticed_by_every_command(folder: Path) -> None:
    commands = (
        ("story", NAME),
        ("union", NAME, NAME),
        ("intervene", NAME, "--ablate", "token[0]"),
        ("hypotheses", NAME),
    )
    weights = (folder / NAME).with_suffix(".safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    for argv in commands:
        refused(sparselit(folder, *argv), f"{NAME}: its weights file holds another model; `sparselit verify {NAME}`")
    weights.write_bytes(whole)
    prompts = folder / "prompts" / "report.jsonl"
    lines = prompts.read_text(encoding="utf-8").splitlines(keepends=True)
    prompts.write_text("".join(lines[1:]), encoding="utf-8")
    for argv in commands:
        refused(sparselit(folder, *argv), f"{NAME}: its report prompts have changed; `sparselit verify {NAME}`")


def test_diff_refuses_models_of_other_shapes(folder: Path) -> None:
    content = json.loads((folder / NAME).read_text())
    content["model"]["config"]["d_model"] = 9
    (folder / "wide.json").write_text(json.dumps(content))
    refused(sparselit(folder, "diff", NAME, "wide.json"), "d_model")


def test_history_is_a_table_and_a_figure(folder: Path) -> None:
    circuits = folder / "run" / "circuits"
    circuits.mkdir(parents=True)
    shutil.copy(folder / NAME, circuits / NAME)
    pruned(folder, 9, 0)
    pruned(folder, 12, 3)
    for step in (9, 12):
        shutil.move(folder / f"step={step}.json", circuits)
    code, out, err = sparselit(folder, "history", "run", "--edges")
    assert (code, err) == (0, "")
    rows = [line.split()[:6] for line in out.splitlines()[1:4]]
    assert rows == [
        ["7", "8", "0", "8", "0", "-"],
        ["9", "7", "0", "0", "1", "0.88"],
        ["12", "7", "0", "1", "1", "0.75"],
    ]
    assert "8 edges and biases in any of the 3 circuits, 6 in all of them" in out
    assert sum("█·█" in line for line in out.splitlines()) == 1
    assert sum("██·" in line for line in out.splitlines()) == 1
    assert (circuits / "history.png").stat().st_size > 10_000
    again = sparselit(folder, "history", "run/circuits", "--no-picture")
    assert again.out in out


def test_history_needs_two_circuits(folder: Path, found: Path) -> None:
    refused(sparselit(folder, "history", "."), "holds one circuit step")
    refused(sparselit(folder, "history", "nowhere"), "nowhere is no folder")
    shutil.copytree(found, folder / "run" / "circuits" / "One")
    refused(sparselit(folder, "history", "run"), "name one of its tasks: One")


# ---------------------------------------------------------------- stability


def test_stability_goes_on_where_it_was_and_refuses_other_reruns(folder: Path) -> None:
    command = ("stability", NAME, "--search", "GroupTesting")
    code, out, err = sparselit(folder, *command, "--runs", "2")
    assert (code, err) == (0, "")
    assert "reruns        2" in out
    file = folder / "step=7.stability.json"
    first = json.loads(file.read_text())
    assert len(first["runs"]) == 2
    code, out, _ = sparselit(folder, *command, "--runs", "4")
    assert code == 0
    content = json.loads(file.read_text())
    assert content["runs"][:2] == first["runs"]
    assert [run["seed"] for run in content["runs"]] == [0, 1, 2, 3]
    assert content["summary"]["runs"] == 4
    assert "8 edges and biases in all" in out  # wired by hand, there is only one circuit
    assert "1 different circuits" in out
    stamp = file.stat().st_mtime_ns
    assert json.loads(sparselit(folder, *command, "--runs", "4", "--json").out) == content["summary"]
    assert file.stat().st_mtime_ns == stamp
    refused(sparselit(folder, "stability", NAME, "--runs", "4"), "other reruns")
    refused(sparselit(folder, *command, "--runs", "1"), "at least 2")
    refused(sparselit(folder, "stability", NAME, "--search", "Nonsense"), "there are Attribution")


def test_stability_keeps_what_is_done_when_it_is_interrupted(folder: Path) -> None:
    process = subprocess.Popen(
        [SCRIPT, "stability", NAME, "--runs", "10000"], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    file = folder / "step=7.stability.json"
    deadline = time.monotonic() + 120
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    done = len(json.loads(file.read_text())["runs"])
    assert 1 <= done < 10_000
    assert f"{done} of 10000 reruns" in err
    assert "Traceback" not in err
    assert sparselit(folder, "stability", NAME, "--runs", str(max(2, done))).code == 0


# ---------------------------------------------------------------- export


def test_export_lists_the_formats_writes_one_and_refuses_what_is_none(folder: Path) -> None:
    listed = sparselit(folder, "export")
    assert "graphml" in listed.out
    code, out, err = sparselit(folder, "export", NAME, "--to", "csv")
    assert (code, out, err) == (0, f"{NAME.removesuffix('.json')}.csv\n", "")
    assert (folder / out.strip()).read_text().startswith("parameter,row,column,weight,source,target\n")
    refused(sparselit(folder, "export", NAME, "--to", "gefx"), "--to must be one of csv, graphml")
    refused(sparselit(folder, "export", "nothing.json", "--to", "csv"), "nothing.json")
    refused(sparselit(folder, "export", NAME, "--to", "csv", "--output", "/dev/null/a.csv"), "/dev/null")
