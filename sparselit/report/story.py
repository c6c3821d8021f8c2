"""The story of a node in words, for a terminal 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.use.story import Link, Node, Story
from sparselit.report.terminal import WIDTH, head_of, node_text, token_label

_MARKS = ("»", "«")  # around the activating token
_CONTEXT = 40  # characters of a prompt


def node_words(circuit: Circuit, node: Node) -> str:
    """A node as a person says it: ``neuron 64 of layer 0``, ``residual 17``, ``token ' single quote``."""
    site, channel = node
    if site in ("token", "position", "logits"):
        return f"{site.removesuffix('s')} {node_text(circuit, node)}"
    if site == "embed" or site.endswith((".in", ".out")):
        return f"residual {channel}"
    if site == "positions":
        return f"position channel {channel}"
    layer, kind = site.split(".")[1], site.rpartition(".")[2]
    if kind == "act":
        return f"neuron {channel} of layer {layer}"
    head, within = head_of(circuit, channel)
    return f"{ {'q': 'query', 'k': 'key', 'v': 'value'}.get(kind, kind) } {within} of head {head}, layer {layer}"


def block_words(site: str) -> str:
    """Where a node on the residual stream stands: ``the attention of layer 0``."""
    if site == "embed":
        return "the embedding"
    if not site.startswith("layers."):
        return "the unembedding"
    _, layer, block, _ = site.split(".")
    return f"{ {'attn': 'the attention', 'mlp': 'the MLP'}[block] } of layer {layer}"


def story_lines(circuit: Circuit, story: Story) -> list[str]:
    """Everything about one node; see :func:`sparselit.circuits.use.story.story`."""
    site, channel = story.node
    title = f"{site}:{channel}  {node_words(circuit, story.node)}"
    if site == "embed" or site.endswith((".in", ".out")):
        title += f", {'read by' if site.endswith('.in') else 'written by'} {block_words(site)}"
    facts: list[tuple[str, str]] = [("reads", _link(circuit, link, "written by")) for link in story.reads]
    facts += [("reads", f"a constant ({story.bias:+.4f}), its bias")] if story.bias is not None else []
    if story.written_by:
        facts.append(("reads", f"what {_blocks(story.written_by)} wrote into residual {channel}"))
    facts += [("writes", _link(circuit, link, "read by")) for link in story.writes]
    if story.read_by:
        facts.append(("writes", f"residual {channel} for {_blocks(story.read_by)}"))
    facts.append(("active", f"at {100 * story.active:.1f} % of positions (report split, n {story.n:,})"))
    means = sorted(story.by_answer.items(), key=lambda item: -item[1])
    shown = [f"{token_label(circuit, token)[0]} {value:+.4f}" for token, value in [*means[:3], *means[3:][-3:]]]
    facts.append(("by answer", f"mean at the answer position: {', '.join(shown)}"))
    lines, previous = [title], ""
    for name, text in facts:
        first, *more = textwrap.wrap(text, WIDTH - 13, break_on_hyphens=False)
        lines += [f"  {name if name != previous else '':<11}{first}", *(" " * 13 + line for line in more)]
        previous = name
    lines += [f"  {'strongest' if not i else '':<11}{text}" for i, text in enumerate(_peaks(circuit, story))]
    return lines


def _link(circuit: Circuit, link: Link, verb: str) -> str:
    behind = f", {verb} {_blocks(link.through)}" if link.through else ""
    return f"{node_words(circuit, link.node)} ({link.weight:+.4f}){behind}"


def _blocks(nodes: Sequence[Node]) -> str:
    words = [block_words(site) for site, _ in nodes]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def _peaks(circuit: Circuit, story: Story) -> list[str]:
    rows = []
    for peak in story.peaks:
        words = [_visible(circuit, token) for token in peak.tokens]
        before, here = "".join(words[: peak.position]), words[peak.position]
        after = "".join(words[peak.position + 1 :])
        room = max(0, _CONTEXT - len(here))
        left = before if len(before) <= room // 2 else f"…{before[len(before) - room // 2 + 1 :]}"
        right = after if len(left) + len(after) <= room else f"{after[: room - len(left) - 1]}…"
        text = f"{left}{_MARKS[0]}{here}{_MARKS[1]}{right}"
        rows.append(f"{peak.value:>+9.4f}  {text}  → {token_label(circuit, peak.answer)[0]}")
    return rows


def _visible(circuit: Circuit, token: int) -> str:
    """A token within a prompt: as it is, and control characters as Python writes them."""
    words = circuit.task.vocabulary
    if not 0 <= token < len(words):
        return f"#{token}"
    return words[token] if words[token].isprintable() else repr(words[token])[1:-1]
