"""A circuit in words: the names of its nodes, and a table for a terminal 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

import torch

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.claims import Evidence, Score, SearchedNull
from sparselit.circuits.evidence.flags import FLAGS
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import matrices, place_name

WIDTH = 80
Node = tuple[str, int]
_QUOTES = {"'": "single quote", '"': "double quote", "`": "backtick"}
_NAMES = 13  # columns of the names at the left of the table


def ends(circuit: Circuit) -> list[tuple[Node, Node]]:
    """The two nodes ``(site, channel)`` of each edge, source first, in the order of the file.

    The channel of a head that reaches the output matrix is the node of its value channel.

    Raises:
        KeyError: the model has no matrix of an edge's name.
    """
    # The wiring depends on the kind of model only, so a model one channel wide has it too, and costs nothing.
    narrow = {"vocab_size": 1, "max_length": 1, "d_head": 1, "d_mlp": 1, "d_position": None, "activation_density": None}
    with torch.random.fork_rng(devices=[]):
        bundles = matrices(Transformer(**{**circuit.model.config, **narrow}))
    found = []
    for name, row, column, _ in circuit.edges:
        (site, channel), target = bundles[name].endpoints(row, column)
        found.append(((f"{site[:-1]}v" if site.endswith(".attn.z") else site, channel), target))
    return found


def head_of(circuit: Circuit, channel: int) -> tuple[int, int]:
    """Head and channel within the head of a query, key or value channel."""
    config = circuit.model.config
    return divmod(channel, config["d_head"] or config["d_model"] // config["n_heads"])


def token_label(circuit: Circuit, token: int) -> tuple[str, str]:
    """A token as it can be read, and its name: quotation marks bare and named, all else as Python writes it."""
    words = circuit.task.vocabulary
    if not 0 <= token < len(words):
        return f"#{token}", ""
    return (words[token], _QUOTES[words[token]]) if words[token] in _QUOTES else (repr(words[token]), "")


def node_label(circuit: Circuit, node: Node) -> tuple[str, str]:
    """What a node is, and what that belongs to: ``("ch 3", "head 1")``; its row in the layer is said by its site."""
    site, channel = node
    if site in ("token", "logits"):
        return token_label(circuit, channel)
    if site.endswith((".attn.q", ".attn.k", ".attn.v")):
        head, within = head_of(circuit, channel)
        return f"ch {within}", f"head {head}"
    return str(channel), ""


def node_text(circuit: Circuit, node: Node) -> str:
    """A node's label on one line: ``head 1 · ch 3``, or ``" double quote``."""
    text, caption = node_label(circuit, node)
    if not caption:
        return text
    return f"{text} {caption}" if node[0] in ("token", "logits") else f"{caption} · {text}"


def circuit_lines(circuit: Circuit) -> list[str]:
    """The circuit, the evidence for it and its edges, each line at most 80 columns wide."""
    lines = [line for name, text in _header(circuit) for line in _fact(name, text)]
    lines += ["", "Evidence (report split, intervals are 95 %)"]
    lines += [line for name, text in _evidence(circuit) for line in _fact(name, text)]
    strata = circuit.evidence.held_out.strata
    if len(strata) > 1:
        lines += ["", f"{'stratum':<36}{'accuracy':>10}{'95 % interval':>19}{'n':>8}"]
        lines += [f"{_cut(name, 35):<36}{_share(s):>10}{_interval(s):>19}{s.n:>8,}" for name, s in strata.items()]
    return [*lines, "", *_edges(circuit)]


def minimal(granularity: str) -> str:
    """What a complete certificate says, in the unit that was removed and certified as one."""
    return f"no single {'edge' if granularity == 'weight' else granularity} can go"


def controlled(searched: Mapping[str, object] | None) -> str:
    """Whether the circuit's size was held against those of searches for nulls, by their names."""
    if not searched:
        return "not controlled; circuits.evidence: full searches the nulls"
    return f"controlled by {len(searched)} searches where there is nothing to find"


def _header(circuit: Circuit) -> Iterator[tuple[str, str]]:
    config, size = circuit.model.config, circuit.size
    yield "controls", controlled(circuit.evidence.nulls.searched)
    yield "task", circuit.task.class_path
    layers = config["n_layers"]
    shape = f"{layers} layer{'s' * (layers != 1)} of {config['n_heads']} heads, {config['d_model']} channels"
    yield "model", f"{shape}; weights {circuit.model.weights}"
    n = circuit.evidence.held_out.n
    for i, row in enumerate(circuit.criterion):
        text = f"{row!s:<22} measured {row.value:.4f} (report split, n {n:,})"
        yield "" if i else "criterion", text
    yield "ablation", str(circuit.ablation)
    free = "biases, gains and sinks that stay"
    yield "size", f"{size.edges:,} edges, {size.nodes:,} nodes, {size.free:,} free ({free})"


def _evidence(circuit: Circuit) -> Iterator[tuple[str, str]]:
    evidence = circuit.evidence
    shifted, needed, nulls = evidence.out_of_distribution, evidence.necessity, evidence.nulls
    yield "sufficient", f"only these edges: {_scores(evidence.held_out)}"
    yield "", f"the full model: {_scores(evidence.full_model)}"
    if shifted is not None:
        yield "shifted", f"these edges, out of distribution: {_scores(shifted)}, n {shifted.n:,}"
    yield "necessary", f"all but these edges: {_scores(evidence.complement)} (necessity loss)"
    yield "", f"still necessary here, one by one: {needed.still_necessary}/{needed.edges} edges"
    certificate = circuit.certificate
    bounds = ", ".join(map(str, certificate.criterion))
    if certificate.complete:
        text = f"{minimal(certificate.granularity)}: without it {bounds} fails on the {certificate.split} split"
        yield "certificate", f"{text} (n {certificate.n:,}, smallest margin {certificate.min_margin:.3g})"
    else:
        yield "certificate", f"incomplete: the search for edges that can go under {bounds} was stopped"
    drawn, matched, orders = nulls.random_circuits, nulls.magnitude_matched, nulls.random_orders
    met = f"{drawn.meet_criterion}/{drawn.draws} meet the criterion"
    yield "nulls", f"random circuits of this size: {met}, best task loss {drawn.task_loss_best:.3g}"
    yield "", f"edges needed in random order: {orders.median:,} (median of {len(orders.edges_needed)})"
    for null, name in ((nulls.shuffled_answers, "shuffled answers"), (nulls.untrained_model, "an untrained model")):
        verdict = "criterion met" if null.meets_criterion else "criterion not met"
        yield "", f"{name}: {verdict}, {_share(null)} right"
    if matched is not None:
        yield "", f"random circuits of like magnitudes: {matched.meet_criterion}/{matched.draws} meet the criterion"
    for key, row in (nulls.searched or {}).items():
        yield "", f"{key.replace('_', ' ')}: {_needed(row)}"
    yield from _inside(evidence)
    share = f"{100 * evidence.unexplained:.1f} %"
    yield "unexplained", f"{share} of the loss that the full model saves over an empty one"


def _needed(row: SearchedNull) -> str:
    reached = ", ".join(f"{b.metric} {row.reached[b.metric]:.3g} (to be ≤ {b.at_most:.3g})" for b in row.bounds)
    if row.edges is None:
        return f"no circuit found, best {reached}"
    return f"{row.edges:,} edges, {reached}" + ("" if row.complete else "; search unfinished")


def _inside(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Faithfulness beyond the output, the worst of each comparison; older files have none."""
    inside = evidence.faithfulness
    if inside is None:
        return
    compared = {
        "circuit's values in the model": inside.interchange.into_full,
        "model's values in the circuit": inside.interchange.into_circuit,
        "random half of the rest in place": inside.random_halves,
        "the rest opened step by step": inside.relaxation,
    }
    for i, (name, row) in enumerate(compared.items()):
        met = f"{row.meet_criterion}/{row.runs} meet the criterion"
        worst = f"worst loss {row.worst_loss:.3g}, {100 * row.worst_accuracy:.1f} % right"
        yield "" if i else "inside", f"{name}: {met}, {worst}"
    shares = [(row.rescaled, site) for site, row in inside.activations.items() if row.rescaled is not None]
    if shares:
        value, site = max(shares)
        yield "", f"activations: up to {100 * value:.1f} % of the variance unexplained ({site}, rescaled)"
    heads = [(row.total_variation, head) for head, row in inside.attention.items()]
    if heads:
        value, head = max(heads)
        yield "", f"attention: up to {100 * value:.1f} % goes elsewhere ({head})"
    if inside.other_norm is not None:
        yield "", f"norms {inside.other_norm.norm}: {_scores(inside.other_norm)}"
    yield "", f"all inside on n {inside.n:,}"
    for i, name in enumerate(evidence.flags or ["none"]):
        yield "" if i else "flags", f"{name}: {FLAGS[name]}" if name in FLAGS else name


def _edges(circuit: Circuit) -> Iterator[str]:
    rows = {removal.unit: removal.values for removal in circuit.certificate.removals}
    bounds = [bound.metric for bound in circuit.certificate.criterion]
    metric = next((name for name in bounds if name.endswith("loss")), bounds[0] if bounds else "task_loss")
    split = circuit.certificate.split
    yield from textwrap.wrap(f"Edges, and {metric} on the {split} split when one is removed", WIDTH)
    places = {site: _place(site) for pair in ends(circuit) for site, _ in pair}
    group = None
    for (source, target), (name, row, column, weight) in zip(ends(circuit), circuit.edges, strict=True):
        if name != group:
            group = name
            title = f"{_cut(name, 28)}  {places[source[0]]} → {places[target[0]]}"
            yield from ("", f"{_cut(title, 56):<58}{'weight':>10}{'removed':>12}")
        removed = _removed(rows.get(place_name((name, row, column), is_bias=False), {}), metric)
        texts = [_cut(node_text(circuit, node), 26) for node in (source, target)]
        yield f"  {texts[0]:>26} → {texts[1]:<27}{weight:>10.4f}{removed}"
    if circuit.biases:
        yield from ("", f"{'Biases that stay':<58}{'value':>10}{'removed':>12}")
    for name, channel, value in circuit.biases:
        removed = _removed(rows.get(place_name((name, channel, 0), is_bias=True), {}), metric)
        yield f"  {_cut(f'{name}[{channel}]', 55):<56}{value:>10.4f}{removed}"


def _removed(values: Mapping[str, float], metric: str) -> str:
    return f"{values[metric]:>12.4f}" if metric in values else f"{'-':>12}"


def _place(site: str) -> str:
    """What the channels of a site are called."""
    if site in ("token", "position", "logits"):
        return site.removesuffix("s")
    kinds = {"q": "query", "k": "key", "v": "value", "act": "neuron"}
    return kinds.get(site.rpartition(".")[2], "channel")


def _fact(name: str, text: str) -> list[str]:
    first, *more = textwrap.wrap(text, WIDTH - _NAMES, break_on_hyphens=False) or [""]
    return [f"{name:<{_NAMES}}{first}", *(" " * _NAMES + line for line in more)]


def _scores(score: Score) -> str:
    return f"{_share(score)} right ({_interval(score)}), loss {score.task_loss:.4f}"


def _share(score: Score) -> str:
    return f"{100 * score.accuracy:.2f} %"


def _interval(score: Score) -> str:
    low, high = score.accuracy_interval
    return f"{100 * low:.2f} - {100 * high:.2f} %"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
