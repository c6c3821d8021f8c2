"""Makes the folder of a shipped model from a run: ``python -m tools.ship_model RUN NAME --what TEXT``.

The weights become half precision and a sparse file. What the model is and where it comes from stands in its card;
losses are measured again on the weights as they are shipped, on the report split of the corpus.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from sparselit.tasks import PythonCode
from torch.nn import functional

from sparselit.data.texts import Texts
from sparselit.interop.shipped import load_model
from sparselit.interop.sparse_file import from_bytes, to_bytes
from sparselit.model.transformer import Transformer
from sparselit.modules.sparse_transformer import next_tokens
from sparselit.runs.atomic import write_bytes, write_text
from sparselit.runs.result import Result
from sparselit.runs.shipped import CARD, SETTINGS, TOKENIZER, WEIGHTS

ROOT = Path(__file__).parents[1]
#: Bound under which a task counts as done: the loss between its two answers, as in Gao et al. 2025.
CRITERION = [{"metric": "answer_loss", "at_most": 0.15}]


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("name")
    parser.add_argument("--what", required=True, help="one sentence for the list")
    parser.add_argument("--command", required=True, help="what trains it again")
    parser.add_argument("--corpus", required=True, help="folder of the corpus that it was trained on")
    options = parser.parse_args()
    result = Result.read(options.run / "result.json")
    model = load_model(options.run)
    content = to_bytes({name: tensor.half() for name, tensor in model.state_dict().items()})
    model.load_state_dict({name: tensor.float() for name, tensor in from_bytes(content).items()})
    data = PythonCode(prepared=options.corpus, context=model.config["max_length"])
    folder = ROOT / "sparselit" / "shipped_models" / options.name
    write_bytes(folder / WEIGHTS, content)
    write_text(folder / TOKENIZER, data.tokenizer.content())
    facts = {
        "what": options.what,
        **card(model, data, result, options.command),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    known = json.loads((folder / CARD).read_text()) if (folder / CARD).is_file() else {}
    kept = {key: value for key, value in known.items() if key not in facts}  # what the benchmarks have measured of it
    write_text(folder / CARD, json.dumps({**facts, **kept}, indent=1, ensure_ascii=False) + "\n")
    settings = yaml.safe_load((options.run / "config.yaml").read_text())
    write_text(folder / SETTINGS, yaml.safe_dump(shipped_settings(settings, options.name), sort_keys=False))


def card(model: Transformer, data: Texts, result: Result, command: str) -> dict[str, Any]:
    """What is known of a model.

    Args:
        model: as it is shipped.
        data: the texts that it was trained on.
        result: of its run.
        command: what trains it again.
    """
    numbers = [parameter.detach() for parameter in model.parameters()]
    nonzero, total = sum(int(n.count_nonzero()) for n in numbers), sum(n.numel() for n in numbers)
    description = data.corpus.description
    nats, per_byte, n = losses(model, data)
    device = result.machine.device
    return {
        "parameters": f"{total:,}, of which {nonzero:,} are not zero ({nonzero / total:.2%})",
        "loss": f"{per_byte:.4f} nats per byte, {nats:.4f} nats per token ({n:,} tokens of held-out files)",
        "trained": f"{result.steps.done:,} steps in {result.seconds.training:.0f} s on {device}",
        "command": command,
        "precision": "stored in half precision; computed in float32",
        "steps": result.steps.done,
        "corpus": f"{sum(description['bytes'].values()) / 1e6:.1f} MB of Python source, not part of this library",
        "corpus_hash": data.corpus.hash,
        "tasks": accuracies(model, data),
        "licences": description["licences"],
        "model": model.config,
    }


@torch.no_grad()
def losses(model: Transformer, data: Texts, windows: int = 1024) -> tuple[float, float, int]:
    """Nats per token and per byte on the report split, and the number of tokens.

    Args:
        model: the model.
        data: the texts.
        windows: how many of the split's windows.
    """
    counts = torch.tensor(data.byte_counts)
    total, length, n = 0.0, 0, 0
    found = data.windows("report", windows)
    for begin in range(0, len(found.tokens), 16):
        rows = found.select(slice(begin, begin + 16))
        targets = next_tokens(rows)
        real = targets >= 0
        total += float(functional.cross_entropy(model(rows.tokens)[real], targets[real], reduction="sum"))
        length += int(counts[targets[real]].sum())
        n += int(real.sum())
    return total / n, total / length, n


@torch.no_grad()
def accuracies(model: Transformer, data: Texts) -> dict[str, dict[str, float | int]]:
    """By task: accuracy between the two answers and over the vocabulary, loss between the two, number of prompts.

    Args:
        model: the model.
        data: the texts with their behaviours.
    """
    found = {}
    for name, behaviour in data.behaviours().items():
        examples = behaviour.splits["report"]
        logits = model(examples.tokens, examples.length - 1)
        ahead = logits.gather(1, examples.answer[:, None]) - logits.gather(1, examples.wrong[:, None])
        found[name] = {
            "two": float((ahead > 0).float().mean()),
            "all": float((logits.argmax(-1) == examples.answer).float().mean()),
            "answer_loss": float(functional.softplus(-ahead).mean()),
            "n": len(ahead),
        }
    return found


def shipped_settings(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """The run's configuration, with the shipped tokenizer and the behaviours that circuits are sought for.

    Args:
        settings: of the run.
        name: of the shipped model.
    """
    arguments = settings["data"]["init_args"]
    wanted = ("source", "context", "batch_size", "held_out", "split_by", "train_share")
    data = {key: arguments[key] for key in wanted if key in arguments}
    return {
        "seed_everything": settings["seed_everything"],
        "threads": settings.get("threads"),
        "data": {"class_path": "PythonCode", "init_args": {**data, "tokenizer": name, "behaviours": "python20"}},
        "model": settings["model"],
        "circuits": {"class_path": "CircuitDiscovery", "init_args": {"criterion": CRITERION}},
        "trainer": {"accelerator": "cpu", "logger": False},
    }


if __name__ == "__main__":
    main()
