"""The story of a node in words, for a terminal 80 columns wide."""

from __future__ import annotations

from collections.abc import Sequence

from sparselit.circuits.circuit import Circuit, EdgeSet
from sparselit.circuits.use.graph import node_of, token_label
from sparselit.circuits.use.story import Link, Node, Story
from sparselit.model.site_table import site
from sparselit.report.facts import hanging, listed, percent, shortened

_INPUTS = {"token": "token", "position": "position", "logits": "logit"}
_HEAD = {"q": "query", "k": "key", "v": "value"}
_BLOCKS = {"embed": "the embedding", "attn": "the attention", "mlp": "the MLP", "unembed": "the unembedding"}
_MARKS = ("»", "«")  # around the activating token
_CONTEXT = 40  # characters of a prompt


def node_words(circuit: EdgeSet, node: Node) -> str:
    """A node as a person says it: ``neuron 64 of layer 0``, ``residual 17``, ``token ' single quote``.

    Args:
        circuit: whose node.
        node: site and channel.
    """
    one, row = node_of(circuit, *node), site(node[0])
    if row.block in ("input", "output"):
        return f"{_INPUTS[row.name]} {one.text}"
    if row.on_stream:
        return f"residual {one.channel}"
    if row.axis == "concatenated":
        return f"position channel {one.channel}"
    if row.axis == "neuron":
        return f"neuron {one.channel} of layer {row.layer}"
    return f"{_HEAD.get(row.kind, row.kind)} {one.within} of head {one.head}, layer {row.layer}"


def block_words(name: str) -> str:
    """Where a node on the residual stream stands: ``the attention of layer 0``."""
    row = site(name)
    return _BLOCKS[row.block] + ("" if row.layer is None else f" of layer {row.layer}")


def story_lines(circuit: Circuit, story: Story) -> list[str]:
    """Everything about one node; see :func:`sparselit.circuits.use.story.story`.

    Args:
        circuit: whose node.
        story: what :func:`sparselit.circuits.use.story.story` gives.
    """
    name, channel = story.node
    title, role = f"{name}:{channel}  {node_words(circuit, story.node)}", site(name).role
    if role:
        title += f", {'read by' if role == 'reads' else 'written by'} {block_words(name)}"
    facts: list[tuple[str, str]] = [("reads", _link(circuit, link, "written by")) for link in story.reads]
    facts += [("reads", f"a constant ({story.bias:+.4f}), its bias")] if story.bias is not None else []
    if story.written_by:
        facts.append(("reads", f"what {_blocks(story.written_by)} wrote into residual {channel}"))
    facts += [("writes", _link(circuit, link, "read by")) for link in story.writes]
    if story.read_by:
        facts.append(("writes", f"residual {channel} for {_blocks(story.read_by)}"))
    facts.append(("active", f"at {percent(story.active, 1)} of positions (report split, n {story.n:,})"))
    means = sorted(story.by_answer.items(), key=lambda item: -item[1])
    shown = [f"{token_label(circuit, token)[0]} {value:+.4f}" for token, value in [*means[:3], *means[3:][-3:]]]
    facts.append(("by answer", f"mean at the answer position: {', '.join(shown)}"))
    lines, previous = [title], ""
    for name, text in facts:
        lines += hanging(f"  {name if name != previous else '':<11}", text)
        previous = name
    lines += [f"  {'strongest' if not i else '':<11}{text}" for i, text in enumerate(_peaks(circuit, story))]
    return lines


def _link(circuit: Circuit, link: Link, verb: str) -> str:
    behind = f", {verb} {_blocks(link.through)}" if link.through else ""
    return f"{node_words(circuit, link.node)} ({link.weight:+.4f}){behind}"


def _blocks(nodes: Sequence[Node]) -> str:
    return listed([block_words(site) for site, _ in nodes])


def _peaks(circuit: Circuit, story: Story) -> list[str]:
    rows = []
    for peak in story.peaks:
        words = [_visible(circuit, token) for token in peak.tokens]
        before, here = "".join(words[: peak.position]), words[peak.position]
        after = "".join(words[peak.position + 1 :])
        room = max(0, _CONTEXT - len(here))
        left = shortened(before, room // 2)
        right = shortened(after, room - len(left), "begin")
        text = f"{left}{_MARKS[0]}{here}{_MARKS[1]}{right}"
        rows.append(f"{peak.value:>+9.4f}  {text}  → {token_label(circuit, peak.answer)[0]}")
    return rows


def _visible(circuit: Circuit, token: int) -> str:
    """A token within a prompt: as it is, and control characters as Python writes them."""
    words = circuit.task.vocabulary
    if not 0 <= token < len(words):
        return f"#{token}"
    return words[token] if words[token].isprintable() else repr(words[token])[1:-1]
