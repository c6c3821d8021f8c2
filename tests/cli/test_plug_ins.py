"""Tasks from a user's folder, an installed package and a file, alone and mixed: trained, searched and verified."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from .conftest import Command

TASK = """\
import itertools

from sparselit import Example, Task


class {name}(Task):
    '''The last of four letters.'''

    max_length = 4

    def __init__(self, letters: str = "abc", **kwargs) -> None:
        super().__init__(**kwargs)
        self.vocabulary = letters

    def examples(self):
        for prompt in map("".join, itertools.product(self.vocabulary, repeat=4)):
            wrong = self.vocabulary[self.vocabulary.index(prompt[-1]) - 1]
            yield Example(prompt, prompt[-1], wrong, prompt[:-1] + wrong)

    def family(self, prompt):
        return prompt[:-1]
"""
PROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "letters-for-sparselit"
version = "1.0"
[project.entry-points."sparselit.plugins"]
letters = "letters_for_sparselit"
[tool.setuptools]
py-modules = ["letters_for_sparselit"]
"""
SIZES = {"batch_size": 16, "discovery": 16, "selection": 8, "report": 12}


def experiment(class_path: str, steps: int = 60, **arguments: object) -> str:
    """The YAML of a run of a few seconds, whose model learns to repeat a letter."""
    circuits = {"every_n_steps": steps, "ablation": "zero", "criterion": [{"metric": "task_loss", "at_most": 0.9}]}
    return yaml.safe_dump({
        "seed_everything": 0,
        "data": {"class_path": class_path, "init_args": {**SIZES, **arguments}},
        "model": {"n_layers": 1, "d_model": 8, "n_heads": 2, "d_mlp": 4, "norm": "none", "bias": False, "lr": 0.03},
        "sparsity": {"class_path": "StaticSparsity", "init_args": {"density": 0.4}},
        "circuits": circuits,
        "trainer": {"max_steps": steps, "accelerator": "cpu", "enable_progress_bar": False, "val_check_interval": 20},
    })  # fmt: skip


def check(sparselit: Command, folder: Path, step: int = 60) -> None:
    """Train, find the same circuit again, and verify it."""
    code, out, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
    run = folder / "runs/run/version_0"
    code, out, err = sparselit("discover", "--ckpt_path", str(run / f"checkpoints/step={step}.ckpt"))
    assert code == 0, err
    assert "as it was before" in out
    code, out, err = sparselit("verify", str(run / f"circuits/step={step}.json"))
    assert code == 0, out + err


def test_a_task_in_the_users_folder(sparselit: Command, folder: Path) -> None:
    (folder / "letters_of_mine.py").write_text(TASK.format(name="Mine"))
    (folder / "run.yaml").write_text(experiment("letters_of_mine.Mine"))
    check(sparselit, folder)


def test_a_task_of_an_installed_package(
    sparselit: Command, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "letters_for_sparselit.py").write_text(TASK.format(name="Packaged"))
    command = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*command, "--target", str(site), str(source)], check=True, capture_output=True)
    monkeypatch.syspath_prepend(str(site))
    (folder / "run.yaml").write_text(experiment("Packaged"))  # the short name is enough
    check(sparselit, folder)
    assert "letters" in sparselit("tasks").out


def test_a_task_from_a_file(sparselit: Command, folder: Path) -> None:
    with (folder / "letters.jsonl").open("w") as file:
        for prompt in map("".join, itertools.product("abc", repeat=4)):
            wrong = "abc"["abc".index(prompt[-1]) - 1]
            line = {"prompt": prompt, "answer": prompt[-1], "wrong": wrong, "corrupted": prompt[:-1] + wrong}
            file.write(json.dumps(line) + "\n")
    (folder / "run.yaml").write_text(experiment("FileTask", path="letters.jsonl"))
    check(sparselit, folder)
    code, out, _ = sparselit("tasks", "--check", "letters.jsonl")
    assert code == 1  # the last token is all that it takes
    assert "fault: last token: this alone gets 100.0 % of held-out prompts right" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "letters.jsonl, line 2: not an example {prompt, answer, wrong, corrupted?}: Expecting value"),
        (
            '{"prompt": "ab", "answer": "b", "wrong": "c"}',
            "letters.jsonl, line 2: the answer to 'ab' is 'b', and 'a' in",
        ),
    ],
)
def test_a_broken_line_stops_the_run_before_it_begins(
    sparselit: Command, folder: Path, line: str, message: str
) -> None:
    (folder / "letters.jsonl").write_text(f'{{"prompt": "ab", "answer": "a", "wrong": "c"}}\n{line}\n')
    (folder / "run.yaml").write_text(experiment("FileTask", path="letters.jsonl"))
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 2
    assert message in err
    assert len(err.splitlines()) <= 2
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("yield Example(prompt, prompt[-1],", "yield Example(prompt, None,"),
        ("yield Example(prompt, prompt[-1],", "yield Example(prompt, 'z',"),
        ("            yield", "            raise ValueError('no luck')\n            yield"),
        ("            yield", "            yield Example(prompt, 'a', 'b')\n            yield"),  # two answers for one
    ],
)
def test_a_broken_plug_in_is_one_line_that_names_its_method(
    sparselit: Command, folder: Path, change: str, message: str
) -> None:
    (folder / f"broken_{abs(hash(message))}.py").write_text(TASK.format(name="Broken").replace(change, message))
    (folder / "run.yaml").write_text(experiment(f"broken_{abs(hash(message))}.Broken"))
    code, _, err = sparselit("fit", "--config", "run.yaml")
    assert code == 2
    assert "Broken.examples()" in err
    assert len(err.splitlines()) <= 2


def test_a_mixture_gives_a_verified_circuit_for_each_task(sparselit: Command, folder: Path) -> None:
    (folder / "letters_to_mix.py").write_text(TASK.format(name="Mixed"))
    tasks = [{"class_path": "letters_to_mix.Mixed", "init_args": {**SIZES, "letters": text}} for text in ("abc", "xyz")]
    (folder / "run.yaml").write_text(experiment("Mixture", 120, tasks=tasks).replace("at_most: 0.9", "at_most: 1.2"))
    code, out, err = sparselit("fit", "--config", "run.yaml")
    assert code == 0, err
    run = folder / "runs/run/version_0"
    sizes = []
    for name in ("Mixed", "Mixed_2"):
        path = run / "circuits" / name / "step=120.json"
        sizes.append(json.loads(path.read_text())["size"]["edges"])
        assert f"step 120, {name}: circuit of {sizes[-1]} edges" in err
        code, said, _ = sparselit("verify", str(path))
        assert code == 0, said
        assert f"circuits/{name}/step=120.json" in out
    assert f"{(sizes[0] * sizes[1]) ** 0.5:.1f} edges, geometric mean of 2 circuits" in out
    assert "% of the edges of two circuits" in out
    search = ("discover", "--ckpt_path", str(run / "checkpoints/step=120.ckpt"), "--jobs")
    code, said, err = sparselit(*search, "2")
    assert code == 0, err
    assert said.count("as it was before") == 2  # byte for byte
    assert sparselit(*search, "0")[0] == 2
    code, _, err = sparselit("fit", "--config", "run.yaml", "--ckpt_path", "last", "--trainer.max_steps", "125")
    assert code == 0, err
