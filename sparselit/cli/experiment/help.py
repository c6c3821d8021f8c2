"""The help of the experiment commands: our keys with their defaults and meaning, then Lightning's."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from sparselit.cli.command_parser import listing
from sparselit.cli.experiment.translation import subclass_names

#: Trainer keys that most users need, in our words; the others are listed by name.
TRAINER = {
    "max_steps": "optimizer steps of the run",
    "max_time": "wall time after which training stops, as in 00:01:30:00 (days first)",
    "accelerator": "cpu, gpu, mps …; auto takes what there is",
    "devices": "number of devices",
    "precision": "32-true, bf16-mixed, 16-mixed or 64-true",
    "gradient_clip_val": "largest norm of the gradient",
    "accumulate_grad_batches": "batches for one optimizer step",
    "val_check_interval": "batches between two validations",
    "log_every_n_steps": "optimizer steps between two logged values",
    "callbacks": "list of further callbacks; --trainer.callbacks+=CLASS appends one",
    "logger": "default: TensorBoard events in the run folder; false for none",
    "default_root_dir": "folder that holds runs/; default: the current one",
}
OPTIONS = {
    "optimizer": "a class of torch in place of the model's AdamW",
    "lr_scheduler": "its schedule, counted in optimizer steps",
    "name": "name of the run, whose folder is runs/NAME/version_0; default: that of the first configuration file",
    "ckpt_path": "a checkpoint file, `last` (the newest of this run, whose folder is used) or `best` (of a monitor)",
    "reproducible": "pin threads, algorithms and CPU kernels, so that other processors give the same digits; slower",
    "allow_dense": "let weights of a sparse checkpoint grow back where nothing keeps them at zero",
    "effort": "quick, normal or thorough: of the recipe (`--config recipe`), which applies where no length is given",
    "init_from": "begin with the weights alone of a checkpoint, a run or a folder to convert, as far as they fit",
    "compile": "torch.compile for the forward pass of training; true, or a mapping of its arguments",
    "prompt": "the text to complete by one token; default: prompts of the report split",
    "n": "number of prompts from the report split, at least 1",
}
TITLES = {
    "data": "data: the task, and the arguments of every task",
    "sparsity": "sparsity: the schedule, and the arguments of every schedule (optional)",
}


def experiment_help(
    parser: ArgumentParser, command: str, purpose: str, model: type, bases: dict[str, type], linked: tuple[str, ...]
) -> str:
    """What ``sparselit fit --help`` prints, at most 80 columns wide.

    Args:
        parser: the command's parser.
        command: ``fit``, ``validate`` …
        purpose: what it does.
        model: the default class of the model.
        bases: the class that stands behind each key, ``data`` first; its arguments are shared by all its subclasses.
        linked: arguments of the model that the data sets.
    """
    options = {action.dest: action for action in parser._actions}
    rows = [
        ("--config NAME|FILE", "a shipped experiment (`sparselit configs`) or a YAML file; later ones override"),
        ("--seed_everything 0", "seed of weights, order and dropout"),
        ("--threads 1", "CPU threads of torch; null for one per core"),
    ]
    rows += [(f"--{name}", text) for name, text in OPTIONS.items() if name in options and _serves(name, command)]
    rows.append(("--print_config", "show the merged configuration and stop (=skip_default: only what differs)"))
    blocks = [
        f"usage: sparselit {command} [--config NAME|FILE] [--KEY VALUE …]\n\n{purpose[0].upper()}{purpose[1:]}.\n"
        "Every key stands in a YAML file or on the command line; values shown are the\ndefaults.\n",
        "options:\n" + _indent(listing(rows, 77)),
    ]
    for key, base in bases.items():
        if key != "model":
            names = ", ".join(sorted(subclass_names(f"{base.__module__}.{base.__qualname__}", ours=True)))
            head = [(f"--{key} CLASS", names or "none installed"), (f"--{key}.help CLASS", "its own arguments")]
            title = TITLES.get(key, f"{key}: the class, and the arguments of every such class (optional)")
            blocks.append(f"{title}\n" + _indent(listing([*head, *_class_rows(key, base, ())], 77)))
            continue
        head = [("--model CLASS", "another LightningModule, by class path")]
        text = f"model: arguments of {model.__name__}\n"
        blocks.append(text + _indent(listing([*head, *_class_rows(key, model, linked)], 77)))
    common = [(_row(f"--trainer.{name}", options[f"trainer.{name}"])[0], text) for name, text in TRAINER.items()]
    others = [name[8:] for name in options if name.startswith("trainer.") and name[8:] not in TRAINER]
    names = ", ".join(name for name in others if not name.endswith("help"))
    blocks.append(
        "trainer: Lightning's Trainer\n"
        + _indent(listing(common, 77))
        + textwrap.fill(f"further keys: {names}", 79, initial_indent="  ", subsequent_indent="    ")
        + "\n"
    )
    return "\n".join(blocks)


def _serves(option: str, command: str) -> bool:
    """Whether a command does anything with an option; all read those that a run's configuration holds."""
    return command == "fit" or option not in ("init_from", "compile", "optimizer", "lr_scheduler")


def _class_rows(key: str, class_type: type, skip: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(class_type, fail_untyped=False, sub_configs=False)
    for action in parser._actions:
        if action.option_strings and "." not in action.dest and action.dest not in ("help", *skip):
            yield _row(f"--{key}.{action.dest}", action)


def _row(name: str, action: Any) -> tuple[str, str]:
    text = " ".join((action.help or "").replace("%%", "%").split()).rstrip(".")
    default = action.default
    if default is None or str(default) in ("==SUPPRESS==", "Unset"):
        return name, text
    if isinstance(default, tuple):
        default = list(default)
    try:
        shown = yaml.safe_dump(default, default_flow_style=True).removesuffix("...\n").strip()
    except yaml.YAMLError:
        shown = str(default)
    return f"{name} {shown}", text


def _indent(text: str) -> str:
    return textwrap.indent(text, "  ")
