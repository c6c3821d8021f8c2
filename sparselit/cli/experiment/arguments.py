"""What the user wrote, file by file and option by option, before any class is imported.

The parser only returns the merged result. Three things need the layers it was merged from: an option that another
object sets, a mapping that a number replaces, and arguments that a change of class drops.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparselit.cli.commands.configs import find_config
from sparselit.cli.experiment import yaml_text
from sparselit.cli.experiment.keys import CLASS_KEYS, DEFAULT_CLASSES, TRAINER_LISTS
from sparselit.cli.experiment.recipe import beneath
from sparselit.cli.experiment.trust import refuse_foreign
from sparselit.errors import SparselitError, suggestion
from sparselit.runs.folder import RunFolder
from sparselit.runs.shipped import is_shipped, shipped_models

LAST, BEST = "last", "best"
#: Options whose value is a text as it was typed, by command; ``--ckpt_path`` is one for all of them.
TEXTS = {"fit": ("--init_from",), "predict": ("--prompt",), "discover": ("--output",)}
_REPRODUCIBLE = "reproducible"
_INFORMATION = ("-h", "--help", "--print_config")


@dataclass(frozen=True)
class Layer:
    """The settings of one configuration file, or of the command line.

    Attributes:
        source: where they stand, for messages.
        settings: value by (key, argument), as in ``("model", "d_model")``; the class is ``("model", "class_path")``.
    """

    source: str
    settings: dict[tuple[str, str], Any]


@dataclass(frozen=True)
class Arguments:
    """An experiment's command line, with the configuration files found.

    Attributes:
        argv: the arguments as typed, the command first, with every ``--config`` a path of a file that exists.
        config_files: those paths, in order.
        layers: settings in the order in which later ones win.
        texts: values by option that are text and no YAML, such as ``ckpt_path``.
        reproducible: whether kernels are to be pinned, which has to happen before torch is loaded.
    """

    argv: list[str]
    config_files: list[Path]
    layers: list[Layer]
    texts: dict[str, str]
    reproducible: bool = False

    @property
    def command(self) -> str:
        """The subcommand, e.g. ``fit``."""
        return self.argv[0]


def prepare(typed: list[str]) -> Arguments:
    """Find the files that a command line names and read what it sets.

    Raises:
        SparselitError: a file is missing or is not YAML, or the command lacks what it cannot do without.
    """
    command, options = typed[0], typed[1:]
    informs = any(option.split("=")[0] in _INFORMATION or _is_class_help(option) for option in options)
    pairs = list(_options(options))
    ckpt_path = next((value for name, value in reversed(pairs) if name == "--ckpt_path"), None)
    if ckpt_path is not None and not ckpt_path.strip():
        raise SparselitError("--ckpt_path is empty; give a file, or last for the newest of the run that --config names")
    if ckpt_path is not None and is_shipped(ckpt_path):
        from sparselit.interop.shipped import unpack  # torch is slow to import

        ckpt_path = str(unpack(ckpt_path))
        pairs = [(name, ckpt_path if name == "--ckpt_path" else value) for name, value in pairs]
    named = {name for name, value in pairs if value is not None}
    if {"--ckpt_path", "--init_from"} <= named:
        raise SparselitError("--ckpt_path goes on with all of a run, --init_from takes weights alone; give one of them")
    has_data = not named.isdisjoint(("--config", "-c", "--data", "--data.class_path"))
    goes_on = ckpt_path is not None and Path(ckpt_path).is_dir()  # in a run that says all about itself
    if command == "fit" and not has_data and not informs and not goes_on:
        raise SparselitError("fit needs --config FILE (see `sparselit configs`) or --data TASK (see `sparselit tasks`)")
    if command != "fit" and not informs and ckpt_path is None:
        raise SparselitError(f"{command} needs --ckpt_path FILE or RUN_FOLDER, or --ckpt_path last with --config")
    if ckpt_path is not None and not has_data and not informs:
        beside = _config_beside(command, ckpt_path)
        refuse_foreign(beside, yaml_text.read(beside))
        pairs.insert(0, ("--config", str(beside)))

    if has_data:
        pairs = [*beneath(command, pairs), *pairs]
    argv: list[str] = [command]
    texts = {} if ckpt_path is None else {"ckpt_path": ckpt_path}
    files: list[Path] = []
    sources: list[str] = []
    contents: list[dict[str, Any]] = []
    values: list[tuple[str, str]] = []
    tables: set[tuple[str, str]] = set()  # settings that are a list of mappings so far
    for name, value in pairs:
        if value is not None and (name == "--ckpt_path" or name in TEXTS.get(command, ())):
            texts[name.removeprefix("--")] = value  # not for the parser, to which null or # is YAML
            continue
        if value is None:
            argv.append(name)
            continue
        if name in ("--config", "-c"):
            if _is_inline(value):
                sources.append("--config")
                contents.append(yaml_text.keys(value, "--config"))
                value = json.dumps(contents[-1], default=str)
            else:
                value = find_config(value)
                files.append(Path(value))
                sources.append(value)
                contents.append(yaml_text.read(files[-1]))
            _refuse_beside_class(contents[-1], sources[-1])
            settings = dict(_settings(contents[-1]))
        else:
            values.append((name, value))
            settings = dict(_typed_settings(values[-1:]))
        # The parser would mix the rows of a table with those of the one that it replaces.
        new = {key for key, setting in settings.items() if _is_table(setting)}
        argv += [f"--{key}.{argument}=[]" for key, argument in sorted(new & tables)]
        tables |= new
        argv += [f"{name}={value}"] if name.startswith("--") else [name, value]
    argv[1:1] = [f"--{key}={name}" for key, name in DEFAULT_CLASSES.items() if _lacks_class(key, contents, values)]
    layers = [Layer(name, dict(_settings(content))) for name, content in zip(sources, contents, strict=True)]
    layers.append(Layer("the command line", dict(_typed_settings(values))))
    said = [content[_REPRODUCIBLE] for content in contents if _REPRODUCIBLE in content]
    said += [yaml_text.load(value, name) for name, value in values if name == f"--{_REPRODUCIBLE}"]
    return Arguments(argv, files, layers, texts, reproducible=said[-1:] == [True])


def _is_table(setting: Any) -> bool:
    return isinstance(setting, list) and any(isinstance(row, dict) for row in setting)


def _lacks_class(key: str, contents: list[dict[str, Any]], values: list[tuple[str, str]]) -> bool:
    """Whether the first thing said of a key gives arguments and no class."""
    for content in contents:
        if content.get(key) is not None:
            return isinstance(content[key], dict) and "class_path" not in content[key]
    for name, value in values:
        if name == f"--{key}":
            return _is_inline(value) and "class_path" not in value
        if name.startswith(f"--{key}."):
            return name not in (f"--{key}.class_path", f"--{key}.help")
    return False


def _config_beside(command: str, ckpt_path: str) -> Path:
    if ckpt_path in (LAST, BEST):
        raise SparselitError(
            f"{command} --ckpt_path {ckpt_path} needs --config, which names the run; or give the file itself"
        )
    if not Path(ckpt_path).exists():
        raise SparselitError(f"checkpoint {ckpt_path!r} does not exist{suggestion(ckpt_path, list(shipped_models()))}")
    folder = RunFolder.of(Path(ckpt_path))
    if folder is None or not folder.config.is_file():
        from sparselit.runs.checkpoint_file import load_checkpoint  # torch is slow to import

        load_checkpoint(ckpt_path)  # where it is damaged, that is what to say
        raise SparselitError(f"no config.yaml beside {ckpt_path!r}; say which task it is about with --config or --data")
    return folder.config


def _options(options: list[str]) -> Iterator[tuple[str, str | None]]:
    """Pairs of option and value, whether written ``--name value`` or ``--name=value``; the value None for a flag."""
    position = 0
    while position < len(options):
        name, sign, value = options[position].partition("=")
        position += 1
        if sign and name.startswith("-"):
            yield name, value
        elif name.startswith("-") and position < len(options) and not options[position].startswith("--"):
            yield name, options[position]
            position += 1
        else:
            yield options[position - 1], None


def _is_class_help(option: str) -> bool:
    return option.startswith("--") and option.split("=")[0].endswith(".help")


def _is_inline(value: str) -> bool:
    """Whether a value is YAML itself and no path."""
    return value.lstrip().startswith("{") or "\n" in value.strip()


def _refuse_beside_class(value: Any, source: str, key: str = "") -> None:
    """Refuse arguments that stand beside the class and not among its ``init_args``."""
    if isinstance(value, list):
        for part in value:
            _refuse_beside_class(part, source, key)
    if not isinstance(value, dict):
        return
    beside = [str(name) for name in value if name not in ("class_path", "init_args", "dict_kwargs")]
    if "class_path" in value and beside:
        raise SparselitError(f"{source}: {key}.{beside[0]} must stand under init_args:, not beside class_path:")
    for name, part in value.items():
        inner = key if name == "init_args" else f"{key}.{name}" if key else str(name)
        _refuse_beside_class(part, source, inner)


def _settings(content: dict[str, Any]) -> Iterator[tuple[tuple[str, str], Any]]:
    trainer = content.get("trainer")
    for written in [written for name in TRAINER_LISTS for written in (name, f"{name}+")]:
        if isinstance(trainer, dict) and written in trainer:
            yield ("trainer", written), trainer[written]
    for key in CLASS_KEYS:
        value = content.get(key)
        if isinstance(value, str):
            yield (key, "class_path"), value
        elif isinstance(value, dict):
            inner = value.get("init_args")
            arguments = {**value, **inner} if isinstance(inner, dict) else value
            for name, setting in arguments.items():
                if name != "init_args":
                    yield (key, str(name)), setting


def _typed_settings(values: list[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], Any]]:
    for name, value in values:
        key, *path = name.removeprefix("--").replace(".init_args", "").split(".")
        is_list = key == "trainer" and len(path) == 1 and path[0].removesuffix("+") in TRAINER_LISTS
        if key not in CLASS_KEYS and not is_list:
            continue
        try:
            setting = yaml_text.load(value, name)
        except SparselitError:
            setting = value
        if not path:
            yield from _settings({key: setting})
        elif len(path) == 1:
            yield (key, path[0]), setting
        else:  # a part of a mapping, as in --sparsity.density.to
            yield (key, path[0]), {".".join(path[1:]): setting}
