"""A folder in which a run, its circuits and the files of others lie, and the commands that read each of them."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from . import damage as d
from .running import answer

RUN, NAME = "runs/case/version_0", "step=160"
CIRCUIT, CHECKPOINT = f"{RUN}/circuits/{NAME}.json", f"{RUN}/checkpoints/{NAME}.ckpt"
OTHER = f"{RUN}/circuits/step=80.json"
CONFIG: dict[str, Any] = {
    "seed_everything": 0,
    "threads": 1,
    "data": {
        "class_path": "FileTask",
        "init_args": {"path": "data.jsonl", "batch_size": 32, "report": 20, "selection": 10, "discovery": 10},
    },
    "model": {"n_layers": 1, "d_model": 8, "n_heads": 2, "lr": 0.02, "norm_eps": 1.1920928955078125e-07},
    "sparsity": {"class_path": "AnnealedSparsity", "init_args": {"density": {"to": 0.4, "end": 0.5}}},
    "circuits": {"every_n_steps": 80, "criterion": [{"metric": "task_loss", "at_most": 0.8}]},
    "trainer": {
        "max_steps": 160,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "logger": False,
        "callbacks": [
            {"class_path": "RunCheckpoint", "init_args": {"every_n_steps": 80}},
            {"class_path": "ModelCheckpoint", "init_args": {"monitor": "val/loss", "filename": "best"}},
        ],
        "val_check_interval": 80,
    },
}
TEXTS: dict[str, Any] = {
    "threads": 1,
    "data": {
        "class_path": "TextFiles",
        "init_args": {"path": "texts", "batch_size": 4, "context": 16, "vocab": 256, "train_share": 0.5},
    },
    "model": {"n_layers": 1, "d_model": 8, "n_heads": 2},
    "trainer": {"max_steps": 2, "accelerator": "cpu", "enable_progress_bar": False, "logger": False},
}
MORE = ("--trainer.max_steps", "162")
#: Commands that read a circuit with what lies beside it.
_OF_CIRCUIT = (
    ("show", CIRCUIT, "--no-picture"),
    ("show", CIRCUIT),
    ("view", CIRCUIT),
    ("view", CIRCUIT, OTHER),
    ("view", RUN),
    ("verify", CIRCUIT),
    ("verify", CIRCUIT, "--json"),
    ("story", CIRCUIT),
    ("diff", CIRCUIT, OTHER),
    ("diff", OTHER, CIRCUIT, "--json"),
    ("union", CIRCUIT, CIRCUIT),
    ("hypotheses", CIRCUIT, "--draws", "19"),
    ("stability", CIRCUIT, "--runs", "2"),
    ("intervene", CIRCUIT, "--ablate", "layers.0.mlp.act:0", "--tasks", OTHER),
    ("history", RUN, "--no-picture"),
    ("discover", "--ckpt_path", RUN),
    ("fit", "--ckpt_path", RUN, *MORE),
)
_OF_CHECKPOINT = (
    ("density", CHECKPOINT),
    ("density", CHECKPOINT, "--json"),
    ("convert", CHECKPOINT, "converted"),
    ("test", "--ckpt_path", CHECKPOINT),
    ("validate", "--ckpt_path", RUN),
    ("predict", "--ckpt_path", CHECKPOINT, "--prompt", "abcd"),
    ("predict", "--ckpt_path", RUN, "--config", "case.yaml"),
    ("discover", "--ckpt_path", CHECKPOINT),
    ("fit", "--ckpt_path", RUN, *MORE),
    ("fit", "--config", "case.yaml", "--ckpt_path", CHECKPOINT, *MORE),
    ("fit", "--config", "case.yaml", "--ckpt_path", "last", *MORE),
    ("test", "--config", "case.yaml", "--ckpt_path", "best"),
)
_OF_RUN = (
    ("runs",),
    ("runs", "--json"),
    ("runs", "--csv"),
    ("fit", "--ckpt_path", RUN, *MORE),
    ("history", RUN, "--no-picture"),
    ("view", RUN),
    ("test", "--ckpt_path", RUN),
)
_OF_CONFIG = (
    ("fit", "--ckpt_path", RUN, *MORE),
    ("fit", "--config", "case.yaml", "--ckpt_path", "last", *MORE),
    ("fit", "--config", f"{RUN}/config.yaml", "--trainer.max_steps", "1"),
    ("test", "--ckpt_path", CHECKPOINT),
    ("validate", "--ckpt_path", RUN),
    ("predict", "--ckpt_path", RUN),
    ("discover", "--ckpt_path", CHECKPOINT),
)
_OF_DATA = (
    ("fit", "--config", "case.yaml", "--trainer.max_steps", "2"),
    ("test", "--ckpt_path", CHECKPOINT),
    ("discover", "--ckpt_path", CHECKPOINT),
    ("fit", "--ckpt_path", RUN, *MORE),
)
_CONVERT = (("convert", "release", "new.ckpt"),)
_OF_TEXTS = (("fit", "--config", "texts.yaml"),)
_OF_TOKENS = (("fit", "--config", "prepared.yaml"),)


class Kind(NamedTuple):
    """A file, how it is damaged and which commands read it."""

    path: str
    damages: tuple[d.Damage, ...]
    commands: tuple[tuple[str, ...], ...]


KINDS = (
    Kind(CIRCUIT, (d.record,), _OF_CIRCUIT),
    Kind(f"{RUN}/circuits/{NAME}.safetensors", (d.tensors,), _OF_CIRCUIT),
    Kind(f"{RUN}/circuits/prompts/report.jsonl", (d.lines,), _OF_CIRCUIT),
    Kind(f"{RUN}/circuits/prompts/discovery.jsonl", (d.lines,), _OF_CIRCUIT),
    Kind(f"{RUN}/circuits/{NAME}.timing.json", (d.record,), (_OF_CIRCUIT[-2], _OF_CIRCUIT[-1])),
    Kind(CHECKPOINT, (d.checkpoint,), _OF_CHECKPOINT),
    Kind(f"{RUN}/checkpoints/best.ckpt", (d.checkpoint,), (_OF_CHECKPOINT[-1], _OF_CHECKPOINT[-4])),
    Kind(f"{RUN}/result.json", (d.record,), _OF_RUN),
    Kind(f"{RUN}/config.yaml", (d.keys,), _OF_CONFIG),
    Kind(f"{RUN}/.owner.json", (d.record,), (_OF_RUN[3],)),
    Kind(f"{RUN}/.lock", (), (_OF_RUN[3],)),
    Kind("case.yaml", (d.keys,), (*_OF_DATA[:1], *_OF_CHECKPOINT[-3:])),
    Kind("data.jsonl", (d.lines,), _OF_DATA),
    Kind("release/beeg_config.json", (d.record,), _CONVERT),
    Kind("release/final_model.pt", (d.checkpoint,), _CONVERT),
    Kind("texts/a.txt", (), _OF_TEXTS),
    Kind("prepared/corpus.json", (d.record,), _OF_TOKENS),
    Kind("prepared/tokenizer.json", (d.record,), _OF_TOKENS),
    Kind("prepared/train.bin", (), _OF_TOKENS),
    Kind("prepared/selection.bin", (), _OF_TOKENS),
)
#: Every command with every file that it reads.
PAIRS = [(kind, command) for kind in KINDS for command in kind.commands]


def answered(*argv: str) -> None:
    """Run a command that has to succeed; what it imports is imported then, so that no limit ends an import."""
    found = answer(argv, seconds=300)
    assert found.code == 0, (argv, found)


def write_data(folder: Path) -> None:
    """Write ``data.jsonl``: the answer is the first letter as a capital."""
    chance = random.Random(0)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < 120:
        prompt, other = ("".join(chance.choices("abcd", k=4)) for _ in range(2))
        if prompt[0] != other[0]:
            answers = {"answer": prompt[0].upper(), "wrong": other[0].upper()}
            rows[prompt] = {"prompt": prompt, **answers, "corrupted": other}
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))


def make(folder: Path) -> None:
    """Fill the current folder.

    Args:
        folder: the same folder.
    """
    write_data(folder)
    chance = random.Random(0)
    (folder / "texts").mkdir()
    for name in ("a", *map(str, range(100))):
        words = " ".join("".join(chance.choices("abcdefgh", k=5)) for _ in range(60))
        (folder / "texts" / f"{name}.txt").write_text(words + "\n")
    (folder / "case.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / "texts.yaml").write_text(yaml.safe_dump(TEXTS))
    answered("fit", "--config", "case.yaml")
    answered("fit", "--config", "texts.yaml")
    made = next((folder / "cache/sparselit/corpora").iterdir())
    shutil.copytree(made, folder / "prepared")
    (folder / "prepared.yaml").write_text(
        (folder / "texts.yaml").read_text().replace("init_args:", "init_args:\n    prepared: prepared", 1)
    )
    (folder / RUN / ".owner.json").write_text('{"host": "here", "process": 1, "since": "today"}')
    answered("convert", CHECKPOINT, "release")
    shutil.rmtree(folder / "runs/texts")


def contents(folder: Path) -> dict[str, bytes]:
    """What the plain files below a folder hold; of links and folders nothing."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 2**25:
            found[str(path.relative_to(folder))] = path.read_bytes()
    return found


#: What a run that goes on writes anew, and what it thins out.
_OF_GOING_ON = ("config.yaml", "result.json", "summary.md", ".lock", ".ckpt")


def lost(
    whole: Mapping[str, bytes], before: Mapping[str, bytes], after: Mapping[str, bytes], command: str, code: Any
) -> str | None:
    """Which file a command has changed that it must not change.

    Args:
        whole: the files as they were before one was damaged; a command may restore that one.
        before: the files, once it is damaged.
        after: the files when the command has ended.
        command: the first word of it.
        code: how it ended.
    """
    rewritten: tuple[str, ...] = (".owner.json",)  # of a process that is gone
    if command in ("show", "view", "history"):
        rewritten += (".png", ".html")
    if (
        command == "fit" and code != 2
    ):  # where its newest checkpoint is damaged, the steps after the older one come again
        rewritten += (*_OF_GOING_ON, f"circuits/{NAME}.json", f"circuits/{NAME}.safetensors", f"{NAME}.timing.json")
    for name, content in before.items():
        if after.get(name) not in (content, whole.get(name)) and not name.endswith(rewritten):
            return f"{name} {'changed' if name in after else 'is gone'}"
    return None
