"""``sparselit intervene``: change parts of the full model, and see what that does to this task and to others."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from sparselit.cli.command_parser import PlainParser
from sparselit.cli.other_tasks import circuit_name, other_prompts
from sparselit.errors import SparselitError
from sparselit.report.facts import interval_text, percent, shortened

if TYPE_CHECKING:
    from sparselit.circuits.loaded import Loaded
    from sparselit.circuits.use.intervene import Intervention

_PART = "a node (layers.0.mlp.act:13, layers.0.attn.v:0,3, or a site for all its channels)"


def run(argv: list[str]) -> None:
    """Print the effect on each task."""
    parser = PlainParser(
        "intervene",
        "Scale, ablate or patch parts in the full model of a circuit, and measure the effect on its task and on others "
        "(report splits). A mixture's other tasks are measured without being named.",
    )
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json")
    parser.add_argument(
        "--scale",
        action="append",
        default=[],
        metavar="PART=X",
        help=f"multiply {_PART}, an edge (layers.0.attn.q.weight[5,2]), a bias, or all the circuit's edges (circuit)",
    )
    parser.add_argument("--ablate", action="append", default=[], metavar="NODE", help="set it to its mean")
    parser.add_argument(
        "--patch", action="append", default=[], metavar="NODE", help="give it its value on the corrupted prompt"
    )
    parser.add_argument(
        "--tasks", nargs="+", default=[], metavar="CIRCUIT", help="other circuits' files, whose prompts are tried too"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable, one object")
    options = parser.parse_args(argv)
    if not (options.scale or options.ablate or options.patch):
        raise SparselitError("nothing to change: give --scale PART=X, --ablate NODE or --patch NODE")

    from sparselit.circuits.loaded import load
    from sparselit.circuits.use.intervene import effect, means

    loaded = load(options.circuit)
    model = loaded.model
    intervention = _intervention(loaded, options.scale, options.ablate, options.patch)
    behaviours = {circuit_name(loaded): loaded.behaviour.splits["report"], **other_prompts(loaded, options.tasks)}
    mean = means(model, list(intervention.ablate), loaded.behaviour.splits["discovery"])
    found = {task: effect(model, intervention, examples, mean) for task, examples in behaviours.items()}
    if options.json:
        text = json.dumps(found, indent=1, ensure_ascii=False)
    else:
        changes = [f"{key} {part}" for key in ("scale", "ablate", "patch") for part in getattr(options, key)]
        text = "\n".join(lines(changes, found))
    sys.stdout.write(text + "\n")


def lines(changes: list[str], found: dict[str, dict[str, Any]]) -> list[str]:
    """The effects as a table: the full model before, and after the change.

    Args:
        changes: what was changed, as typed.
        found: by task, :func:`sparselit.circuits.use.intervene.effect`.
    """
    rows = [f"full model, report split: {', '.join(changes)}"] if len(", ".join(changes)) < 50 else changes
    rows += ["", f"{'task':<20}{'':<8}{'loss':>9}{'accuracy':>11}{'95 % interval':>19}{'wrong':>11}"]
    for task, values in found.items():
        for name in ("before", "after"):
            score = values[name]
            label = shortened(task, 19, "begin") if name == "before" else f"  n {values['n']:,}"
            rows.append(
                f"{label:<20}{name:<8}{score['task_loss']:>9.4f}{percent(score['accuracy']):>11}"
                f"{interval_text(score['accuracy_interval']):>19}{percent(score['wrong']):>11}"
            )
        rows.append(f"{'':<20}{percent(values['flipped'])} of the answers change, KL {values['kl']:.4f} nats")
    return [*rows, "", "wrong: share answered by the competing answer"]


def _intervention(loaded: Loaded, scale: list[str], ablate: list[str], patch: list[str]) -> Intervention:
    from sparselit.circuits.use.intervene import Intervention
    from sparselit.circuits.use.names import parse_place
    from sparselit.model.wiring import Edges

    model = loaded.model
    made = Intervention()
    for text in scale:
        part, equals, factor = text.rpartition("=")
        try:
            value = float(factor)
        except ValueError:
            equals = ""
        if not equals:
            raise SparselitError(f"--scale {text} needs a factor, as in --scale layers.0.mlp.act:13=0")
        if part == "circuit":
            made.edges.update(dict.fromkeys(loaded.circuit.places, value))
        elif (place := parse_place(part, model, Edges.of(model))) is not None:
            made.edges[place] = value
        else:
            site, channels = _site(part, loaded)
            made.scale.update({(site, channel): value for channel in channels})
    for option, texts, into in (("--ablate", ablate, made.ablate), ("--patch", patch, made.patch)):
        for text in texts:
            if parse_place(text, model, Edges.of(model)) is not None or text == "circuit":
                raise SparselitError(f"{option} takes nodes; to remove an edge: --scale '{text}=0'")
            site, channels = _site(text, loaded)
            into.setdefault(site, []).extend(channels)
    return made


def _site(text: str, loaded: Loaded) -> tuple[str, list[int]]:
    """A node's site and channels; tokens and positions are inputs and cannot be changed."""
    from sparselit.circuits.use.names import parse_nodes

    site, channels = parse_nodes(text, loaded.model, loaded.behaviour.vocabulary)
    if site in ("token", "position"):
        raise SparselitError(f"{text!r} is an input; change what it writes, as in --scale embed=0")
    return site, channels
