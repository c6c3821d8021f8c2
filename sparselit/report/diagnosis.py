"""A diagnosis in words, for a terminal 80 columns wide."""

from __future__ import annotations

from sparselit.circuits.circuit import EdgeSet
from sparselit.circuits.use.names import node_name
from sparselit.circuits.use.repair.diagnose import Counted, Diagnosis, Suspect
from sparselit.model.wiring import place_name
from sparselit.report.facts import hanging, interval_text, percent
from sparselit.report.story import node_words

_VERBS = {
    "restore": "is zero; with {after:+.4g} there",
    "turn": "has the wrong sign ({before:+.4g}); with {after:+.4g}",
    "ablate": "does harm ({before:+.4g}); without it",
    "change": "has the wrong size ({before:+.4g}); with {after:+.4g}",
}


def diagnosis_lines(circuit: EdgeSet, found: Diagnosis) -> list[str]:
    """What is behind the errors, and what is not explained.

    Args:
        circuit: whose vocabulary and places are meant.
        found: the diagnosis.
    """
    rows = [f"{found.wrong:,} of {found.n:,} prompts are answered wrongly"]
    if found.fault is not None:
        rows += hanging("fault        ", _sentence(found.fault))
    else:
        rows += hanging("fault        ", "none found: no single weight repairs most of the errors and harms nothing")
    rows += hanging("circuit      ", f"run alone, it makes {_share(found.circuit_errs)} of the held-out errors too")
    rows += hanging("unexplained  ", f"{_share(found.unexplained)} of them are repaired by no single weight")
    rows += ["", f"{'the most responsible weights':<40}{'repairs':>9}{'95 % interval':>18}{'breaks':>9}"]
    for suspect in found.suspects:
        name = _name(suspect) + ("" if suspect.inside else " *")
        low_high = interval_text(suspect.repairs[1])
        rows.append(f"  {name:<38}{percent(suspect.repairs[0], 1):>9}{low_high:>18}{percent(suspect.breaks[0], 1):>9}")
        rows.append(f"    {suspect.kind}: {suspect.before:+.4g} → {suspect.after:+.4g}, loss {suspect.loss:.4f}")
    if any(not suspect.inside for suspect in found.suspects):
        rows.append("  * none of the circuit's")
    for i, j, repairs in found.pairs:
        rows += hanging("  ", f"suspects {i + 1} and {j + 1} together repair {_share(repairs)}")
    rows += ["", "errors by the first node that differs from the nearest right prompt"]
    for group in found.groups:
        if group.node is None:
            rows += hanging("  ", f"on {percent(group.share, 1)} no node of the circuit differs")
            continue
        where = f"on {percent(group.share, 1)}: {node_name(*group.node)}, {node_words(circuit, group.node)}"
        mends = "" if group.repairs is None else f"; its value there repairs {_share(group.repairs)} of them"
        rows += hanging("  ", where + mends)
    return rows


def _sentence(suspect: Suspect) -> str:
    verb = _VERBS[suspect.kind].format(before=suspect.before, after=suspect.after)
    own = "" if suspect.inside else ", which the circuit does not have,"
    return f"{_name(suspect)}{own} {verb}, {_share(suspect.repairs)} of the held-out errors are right"


def _name(suspect: Suspect) -> str:
    return place_name(suspect.place, suspect.place[0].endswith("bias"))


def _share(counted: Counted) -> str:
    return f"{percent(counted[0], 1)} [{interval_text(counted[1])}]"
