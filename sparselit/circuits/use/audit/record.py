"""The record of an audit: decisions of one model on some prompts, as the file has them.

Margins are logits, divergences nats, shares and p-values lie in [0, 1]. ``docs/reference/audit_file.md`` says what each
field means.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from sparselit.circuits.use.audit.flips import TokenFlips
from sparselit.circuits.use.audit.typical import Typical
from sparselit.errors import SparselitError
from sparselit.runs.json_record import LEFT_OUT, Count, read, write
from sparselit.runs.json_schema import schema_of
from sparselit.runs.machine import MadeOn
from sparselit.runs.plain_file import read_json
from sparselit.statistics.intervals import wilson

FORMAT, VERSION = "sparselit-audit", 1
Verdict = Literal["explained", "partly explained", "not explained"]


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Where trust ends. The first two decide between explained and not; a failure of another leaves it partly so.

    Attributes:
        necessary: least share of the model's margin that is lost with the circuit removed from it.
        kl: largest divergence of the circuit from the model on this prompt, nats.
        margin: least margin of the circuit, as a share of the model's.
        decisive: least share of the circuit's margin that an edge must carry to count as decisive.
        confirmed: least share of the decisive edges whose removal costs the full model a tenth of its margin too.
        typical: least conformal p-value of both distances to the discovery prompts.
    """

    necessary: float = 0.5
    kl: float = 0.5
    margin: float = 0.5
    decisive: float = 0.25
    confirmed: float = 0.5
    typical: float = 0.01


class Condition(NamedTuple):
    """One line of a verdict: a value, its bound, whether it holds, and whether the verdict stands and falls with it."""

    name: str
    value: float
    bound: float
    holds: bool
    needed: bool


class Carried(NamedTuple):
    """What one part carried: the margin lost without it, and whether the answer flips, in circuit and full model."""

    part: str
    circuit: float
    full: float
    flips_circuit: bool
    flips_full: bool


class Moved(NamedTuple):
    """The smallest change of one node at one position that flips the full model's answer."""

    node: str
    position: Count
    change: float
    deviations: float
    answer: str


@dataclass(frozen=True, kw_only=True)
class Account:
    """What one circuit says of a decision.

    Attributes:
        circuit: its number in the audit's list.
        verdict: of this circuit alone.
        conditions: the thresholds, one by one.
        answer: what the circuit answers.
        margin: of the model's answer over its rival, in the circuit.
        kl: divergence of the circuit from the model.
        complement_answer: what the model answers with the circuit removed from it.
        complement_margin: its margin then.
        confirmed: of the decisive edges, how many the full model confirms, and how many there are.
        edges: every edge and bias of the circuit, the one that carried most first.
        nodes: every node, likewise.
        tokens: prompts one or two tokens away.
        activations: the nodes that have to change least.
        typical: where the prompt lies among those the circuit was certified on.
        stratum: kind of the discovery prompt that is nearest.
    """

    circuit: Count
    verdict: Verdict
    conditions: tuple[Condition, ...]
    answer: str
    margin: float
    kl: float
    complement_answer: str
    complement_margin: float
    confirmed: tuple[Count, Count]
    edges: tuple[Carried, ...]
    nodes: tuple[Carried, ...]
    tokens: Flips
    activations: tuple[Moved, ...]
    typical: Place
    stratum: str


@dataclass(frozen=True, kw_only=True)
class Flips:
    """:class:`sparselit.circuits.use.audit.flips.TokenFlips`, with prompt, answer and right answer as texts."""

    changed: Count
    tried: Count
    flipped: Count
    justified: Count | None = field(default=None, metadata=LEFT_OUT)
    missed: Count | None = field(default=None, metadata=LEFT_OUT)
    flips: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, found: TokenFlips, words: tuple[str, ...]) -> Flips:
        """The same in a vocabulary; the right answer is empty where none is known."""
        rows = tuple(
            ("".join(words[t] for t in flip.tokens), words[flip.answer], words[flip.right] if flip.right >= 0 else "")
            for flip in found.flips
        )
        return cls(
            changed=found.changed,
            tried=found.tried,
            flipped=found.flipped,
            justified=found.justified,
            missed=found.missed,
            flips=rows,
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """:class:`sparselit.circuits.use.audit.typical.Typical` as the file has it."""

    tokens: Count
    tokens_p: float
    inside: float
    inside_p: float
    unusual: tuple[str, ...]
    unusual_share: float

    @classmethod
    def of(cls, found: Typical) -> Place:
        """The same without the nearest prompt's number."""
        return cls(
            tokens=found.tokens,
            tokens_p=found.tokens_p,
            inside=found.inside,
            inside_p=found.inside_p,
            unusual=found.unusual,
            unusual_share=found.unusual_share,
        )


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One answer of the model, accounted for.

    Attributes:
        prompt: the text.
        tokens: its tokens.
        sha256: of the text in UTF-8.
        answer: what the full model answers.
        rival: the token over which its margin is measured: the task's wrong answer where it is known, or the runner-up.
        margin: logit of the answer over the rival's.
        probability: of the answer.
        right: the right answer by the task's rule, or by the split that holds the prompt.
        split: which split of the circuits holds the prompt.
        verdict: the best of the circuits'.
        accounts: one for each circuit, the best first.
    """

    prompt: str
    tokens: tuple[str, ...]
    sha256: str
    answer: str
    rival: str
    margin: float
    probability: float
    right: str | None = field(default=None, metadata=LEFT_OUT)
    split: str | None = field(default=None, metadata=LEFT_OUT)
    verdict: Verdict
    accounts: tuple[Account, ...]


@dataclass(frozen=True, kw_only=True)
class Audited:
    """A circuit that was asked.

    Attributes:
        file: its path, relative to the audit's file.
        sha256: of the file.
        task: name of its task's class.
        rule: whether the task's own rule gave right answers.
    """

    file: str
    sha256: str
    task: str
    rule: bool


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What an audit's file holds.

    Attributes:
        model: hash of the model that every circuit belongs to.
        circuits: those that were asked.
        thresholds: of the verdicts.
        decisions: in the order of the prompts.
        made_on: the machine.
    """

    model: str
    circuits: tuple[Audited, ...]
    thresholds: Thresholds
    decisions: tuple[Decision, ...]
    made_on: MadeOn

    def shares(self) -> dict[str, tuple[int, tuple[float, float]]]:
        """Of each verdict, how many decisions have it, and the 95 % interval of its share (Wilson)."""
        n, verdicts = len(self.decisions), [decision.verdict for decision in self.decisions]
        return {verdict: (k := verdicts.count(verdict), wilson(k, n)) for verdict in get_args(Verdict)}

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {"format": FORMAT, "version": VERSION, **write(self)}


def schema() -> dict[str, Any]:
    """The JSON Schema of an audit's file."""
    return schema_of(Audit, "An audit of decisions by sparselit", format=FORMAT, version=VERSION)


def read_audit(path: Path) -> Audit:
    """Read and validate an audit.

    Raises:
        SparselitError: the file is missing or no audit, or a field is missing, unknown or of another type.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise SparselitError(f"cannot read the audit {path}: {error.strerror}") from error
    except ValueError as error:
        raise SparselitError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise SparselitError(f"{path} is no audit of version {VERSION}: its format is not {FORMAT!r}")
    try:
        return read(Audit, {name: value for name, value in content.items() if name not in ("format", "version")})
    except SparselitError as error:
        raise SparselitError(f"{path}: {error}") from error
