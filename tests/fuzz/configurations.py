"""Configurations and command lines of which something was changed that nobody should have changed."""

from __future__ import annotations

import copy
import random
from typing import Any

import yaml

#: An experiment of two steps that names every kind of value.
BASE: dict[str, Any] = {
    "seed_everything": 0,
    "threads": 1,
    "data": {
        "class_path": "Parity",
        "init_args": {
            "length": 9,
            "batch_size": 8,
            "pool": 300,
            "report": 20,
            "selection": 10,
            "discovery": 10,
            "seed": 1,
            "num_workers": 0,
        },
    },
    "model": {
        "class_path": "SparseTransformer",
        "init_args": {
            "n_layers": 1,
            "d_model": 8,
            "n_heads": 2,
            "d_head": 4,
            "d_mlp": 8,
            "init_std": 0.02,
            "activation_density": 0.5,
            "lr": 0.01,
            "betas": [0.9, 0.95],
            "eps": 1e-8,
            "weight_decay": 0.1,
            "warmup": 0.1,
            "final_lr": 0.1,
            "decay": "linear",
            "label_smoothing": 0.0,
            "gradient_rms": 1.0,
            "gradient_over": "all",
            "loss_on": "answer",
        },
    },
    "sparsity": {
        "class_path": "AnnealedSparsity",
        "init_args": {
            "density": {"to": 0.5, "start": 1.0, "begin": 0.0, "end": 0.5, "shape": "cubic", "jumps": 4},
            "rules": [{"match": "*.norm*", "density": None}, {"match": "*", "density": "default", "floor": 0}],
            "moments": "keep",
            "grads": "dense",
        },
    },
    "circuits": {
        "class_path": "CircuitDiscovery",
        "init_args": {
            "every_n_steps": 500,
            "begin": {"density": 0.1, "step": 400},
            "criterion": [{"metric": "task_loss", "at_most": 0.15}, {"metric": "accuracy", "at_least": 0.9}],
            "ablation": {"kind": "mean", "norm": "live"},
            "granularity": "weight",
            "margin": 0.1,
            "max_seconds": 5,
            "search": {"class_path": "GroupTesting", "init_args": {}},
            "evidence": "quick",
        },
    },
    "trainer": {
        "max_steps": 2,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 1,
        "accumulate_grad_batches": 1,
        "gradient_clip_val": 1.0,
        "gradient_clip_algorithm": "norm",
        "limit_val_batches": 1.0,
        "num_sanity_val_steps": 0,
        "overfit_batches": 0.0,
        "max_time": None,
        "max_epochs": None,
        "min_steps": None,
        "precision": "32-true",
        "deterministic": None,
        "benchmark": None,
        "logger": False,
        "profiler": None,
        "default_root_dir": None,
        "callbacks": [{"class_path": "RunCheckpoint", "init_args": {"every_n_steps": 2, "keep": 1}}],
    },
}
#: What is written in place of a value.
VALUES: tuple[Any, ...] = (
    *(None, True, False, "", " ", "many", "null", "1e3", "\n", "x: y", "\x1b[31m", "é" * 300, "a.b.C", "../..", "/"),
    *(0, 1, -1, 3, -5, 2**31, 2**63, 2**70, -(2**70), 10**15),
    *(0.5, -0.1, 1.5, 1e-320, 1e15, 1e308, float("nan"), float("inf"), float("-inf")),
    *([], {}, [1], [None], [[]], {"a": 1}, {"class_path": None}, {"class_path": "Parity", "init_args": None}),
)
Path = tuple[Any, ...]


def places(value: Any, path: Path = ()) -> list[Path]:
    """Every place of a configuration."""
    found = [path] if path else []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        found += places(part, (*path, key))
    return found


PLACES = places(BASE)


def _put(config: Any, path: Path, value: Any) -> None:
    for key in path[:-1]:
        config = config[key]
    config[path[-1]] = value


def _drop(config: Any, path: Path) -> None:
    for key in path[:-1]:
        config = config[key]
    del config[path[-1]]


def cut(text: str, chance: random.Random) -> str:
    """A text that is no longer what its author meant."""
    lines = text.splitlines()
    row = chance.randrange(len(lines))
    what = chance.randrange(6)
    if what == 0:
        lines.insert(row, lines[row])  # a key twice
    elif what == 1:
        del lines[row]
    elif what == 2:
        lines[row] = " " * chance.randrange(1, 5) + lines[row]
    elif what == 3:
        lines[row] = lines[row].replace(
            ":", chance.choice(["", "::", ": [", ": {", ": &a", ": *a", ": !!python/name:os"])
        )
    elif what == 4:
        lines[row] += chance.choice(["\t", " #", " '", ' "', " - ", "\x00", "\ufeff", " |", " >", " %", " @", " `"])
    else:
        return text[: chance.randrange(len(text))]
    return "\n".join(lines)


def case(number: int) -> tuple[str, list[str]]:
    """The configuration and the further options of one case.

    Args:
        number: of the case; it is all that the case depends on.
    """
    chance = random.Random(number)
    config = copy.deepcopy(BASE)
    options: list[str] = []
    kind = chance.randrange(10)
    path = PLACES[number % len(PLACES)]
    if kind < 6:
        _put(config, path, chance.choice(VALUES))
    elif kind == 6:
        _drop(config, path)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    if kind == 7:
        text = cut(text, chance)
    if kind >= 8:
        key = ".".join(str(part) for part in path if part != "init_args" and not isinstance(part, int))
        value = chance.choice(VALUES)
        options.append(f"--{key}={'null' if value is None else value}")
    if kind == 9:
        more = [
            f"--seed_everything={chance.choice(VALUES)}",
            "--ckpt_path=",
            "--ckpt_path=last",
            "--config=",
            "--config=a\nb",
        ]
        more += ["--config={a: 1}", "--config={data: Parity", "--trainer", "--data=", "--model.class_path=", "--", "-x"]
        options.append(chance.choice(more))
    return text, [option.replace("\x00", "") for option in options]
