"""A model by the path of a checkpoint or a circuit, and a checkpoint of another one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparselit.errors import SparselitError

if TYPE_CHECKING:
    from sparselit.circuits.loaded import Loaded
    from sparselit.circuits.use.prompts import Oracle
    from sparselit.data.examples import Examples
    from sparselit.model.transformer import Transformer


def model_of(path: str | Path) -> Transformer:
    """The full model of a checkpoint, or of a circuit's file.

    Args:
        path: ``.json`` is a circuit.

    Raises:
        SparselitError: the file is missing or holds none.
    """
    from sparselit.circuits.loaded import load
    from sparselit.model.transformer import Transformer

    return load(path).model if Path(path).suffix == ".json" else Transformer.from_checkpoint(path)


def write_model(source: str | Path, model: Transformer, target: Path) -> None:
    """Write a model as a checkpoint; all else in it is that of ``source``, where that is a checkpoint.

    Args:
        source: where the unchanged model came from.
        model: to write.
        target: the new checkpoint, which must not exist.

    Raises:
        SparselitError: there is something already.
    """
    import torch

    from sparselit.runs.atomic import write_atomically
    from sparselit.runs.checkpoint_file import load_checkpoint

    if target.exists():
        raise SparselitError(f"{target} exists; an edit writes a new checkpoint, so name another file")
    content = {"hyper_parameters": model.config} if Path(source).suffix == ".json" else load_checkpoint(source)
    others = {name: x for name, x in content.get("state_dict", {}).items() if not name.startswith("transformer.")}
    content["state_dict"] = others | {f"transformer.{name}": x for name, x in model.state_dict().items()}
    write_atomically(target, lambda file: torch.save(content, file))


def examples_of(path: Path, vocabulary: Sequence[str], longest: int, solve: Oracle | None) -> Examples:
    """Prompts with answers from a JSON-lines file.

    Args:
        path: each line has ``prompt``, and ``answer`` where the task has no rule.
        vocabulary: the tokens as text.
        longest: most tokens of a prompt.
        solve: the rule of the task.

    Raises:
        SparselitError: a line is none, or its answer is not known; the message names it.
    """
    import torch

    from sparselit.circuits.use.prompts import encoded, unanswered
    from sparselit.runs.plain_file import parse_json, read_text

    texts, answers = [], []
    try:
        for number, line in enumerate(read_text(path).rstrip("\n").split("\n"), 1):
            row = parse_json(line)
            text = "".join(row["prompt"])
            answer = row.get("answer") or (solve(text) if solve else None)
            if answer is None or answer not in vocabulary:
                raise SparselitError(f"{path}, line {number}: no answer that is a token of the task; give it as answer")
            texts.append(text)
            answers.append(list(vocabulary).index(answer))
    except OSError as error:
        raise SparselitError(f"cannot read the prompts {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise SparselitError(f"{path}: each line must be JSON with a key prompt, and answer ({error!r})") from error
    found = unanswered(encoded(texts, vocabulary, longest))
    return found._replace(answer=torch.tensor(answers), wrong=torch.tensor(answers))


def pool_of(circuit: Loaded, split: str | None, prompts: str | None) -> Examples:
    """The prompts whose errors are meant: of a file, of a split, out of distribution, or else of the report split.

    Args:
        circuit: whose splits and vocabulary.
        split: a split's name.
        prompts: a JSON-lines file.

    Raises:
        SparselitError: there is no such split, or the file cannot be read.
    """
    from sparselit.cli.oracle import oracle

    if prompts:
        words = circuit.behaviour.vocabulary
        return examples_of(Path(prompts), words, circuit.model.max_length, oracle(circuit))
    splits = circuit.behaviour.splits
    name = split or ("out_of_distribution" if "out_of_distribution" in splits else "report")
    if name not in splits:
        raise SparselitError(f"--split {name}: the circuit's splits are {', '.join(splits)}")
    return splits[name]


def like(circuit: Loaded, ckpt_path: str | None) -> Transformer:
    """The model of a checkpoint, of the circuit's shape; without one the circuit's own.

    Args:
        circuit: whose shape it must have.
        ckpt_path: a checkpoint, or another circuit's file.

    Raises:
        SparselitError: it has another shape.
    """
    if not ckpt_path:
        return circuit.model
    model = model_of(ckpt_path)
    shapes = [{name: x.shape for name, x in one.state_dict().items()} for one in (model, circuit.model)]
    if shapes[0] != shapes[1]:
        raise SparselitError(f"{ckpt_path}: its model has another shape than the circuit's")
    return model
