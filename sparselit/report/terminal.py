"""A circuit in words: a table for a terminal 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.claims import Evidence, Score, SearchedNull
from sparselit.circuits.criterion import limit_text
from sparselit.circuits.evidence.assumptions import assumptions
from sparselit.circuits.evidence.flags import FLAGS
from sparselit.circuits.use.graph import graph_of
from sparselit.model.site_table import site
from sparselit.model.wiring import place_name
from sparselit.report.facts import counted, hanging, interval_text, percent, shortened, size_text, unit_of

ASSUMED = "Assumed, and what would refute it"
DID_NOT_GENERALISE = "did not generalise: a stated bound fails on the report split"
_NAMES = 13  # columns of the names at the left of the table


def circuit_lines(circuit: Circuit) -> list[str]:
    """The circuit, the evidence for it and its edges, each line at most 80 columns wide."""
    lines = [line for name, text in _header(circuit) for line in hanging(f"{name:<{_NAMES}}", text)]
    lines += ["", "Evidence (report split, intervals are 95 %)"]
    lines += [line for name, text in _evidence(circuit) for line in hanging(f"{name:<{_NAMES}}", text)]
    strata = circuit.evidence.held_out.strata
    if len(strata) > 1:
        lines += ["", f"{'stratum':<36}{'accuracy':>10}{'95 % interval':>19}{'n':>8}"]
        lines += [
            f"{shortened(name, 35, 'begin'):<36}{_share(s):>10}{_interval(s):>19}{s.n:>8,}"
            for name, s in strata.items()
        ]
    lines += ["", ASSUMED]
    for row in assumptions(circuit.ablation, circuit.criterion, circuit.certificate.granularity):
        lines += hanging(f"{row.name:<{_NAMES}}", str(row))
    return [*lines, "", *_edges(circuit)]


def minimal(granularity: str, units: int) -> str:
    """What a complete certificate says.

    Args:
        granularity: what was removed and certified as one.
        units: how many of these the circuit has.
    """
    unit = unit_of(granularity)
    return f"no single {unit} can go" if units else f"no {unit} can go: there is no {unit} in it"


def controlled(searched: Mapping[str, object] | None) -> str:
    """Whether the circuit's size was held against those of searches for nulls, by their names."""
    if not searched:
        return "not controlled; circuits.evidence: full searches the nulls"
    return f"controlled by {len(searched)} searches where there is nothing to find (for the record)"


def _header(circuit: Circuit) -> Iterator[tuple[str, str]]:
    config, size = circuit.model.config, circuit.size
    yield "controls", controlled(circuit.evidence.nulls.searched)
    if circuit.seal == "broken":
        yield "seal", "BROKEN: the record was edited after it was written"
    if not circuit.generalises:
        yield "verdict", DID_NOT_GENERALISE
    yield "task", f"{circuit.task.class_path} (for the record)"
    shape = f"{counted(config['n_layers'], 'layer')} of {config['n_heads']} heads, {config['d_model']} channels"
    yield "model", f"{shape}; weights {circuit.model.weights}"
    n = circuit.evidence.held_out.n
    for i, row in enumerate(circuit.criterion):
        text = f"{row!s:<22} measured {row.value:.4f} (report split, n {n:,})"
        yield "" if i else "criterion", text
    yield "ablation", str(circuit.ablation)
    free = "biases, gains and sinks that stay"
    yield "size", f"{size_text(size.edges, size.nodes, size.free)} ({free})"
    spent = f"{circuit.search.class_path.rpartition('.')[2]}, {counted(circuit.search.evaluations, 'evaluation')}"
    if tried := circuit.search.tried:
        spent += f", the smallest of {len(tried)} circuits of up to {max(tried.values())}"
    yield "search", f"{spent} (for the record)"


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
        text = minimal(certificate.granularity, len(certificate.removals))
        if certificate.removals:
            text += f": without it {bounds} fails on the {certificate.split} split (n {certificate.n:,}, "
            text += f"smallest margin {certificate.min_margin:.3g})"
        yield "certificate", text
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
    yield from _attacked(evidence)
    yield from _inside(evidence)
    yield "unexplained", f"{percent(evidence.unexplained, 1)} of the loss that the full model saves over an empty one"


def _needed(row: SearchedNull) -> str:
    reached = ", ".join(
        f"{b.metric} {row.reached[b.metric]:.3g} (to be {limit_text(b.at_most, b.at_least, 3)})" for b in row.bounds
    )
    if row.edges is None:
        return f"no circuit found, best {reached} (for the record)"
    return f"{row.edges:,} edges, {reached}" + ("" if row.complete else "; search unfinished")


def _attacked(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """The worst of the other edges put back, and the same edges under other ablations; older files have neither."""
    row = evidence.adversary
    if row is None:
        yield "adversary", "not attacked: no search was run for the worst edges to put back (evidence: full)"
    else:
        broken = f"broken by {counted(row.broken_by, 'edge')}" if row.broken_by else "not broken"
        yield (
            "adversary",
            f"{len(row.greedy.edges)} of the other edges put back, greedily: {_scores(row.greedy)}, {broken}",
        )
        yield "", f"shares of {row.budget} edges in all, by gradient: {_scores(row.gradient)}"
    for kind, score in (evidence.other_ablations or {}).items():
        yield "", f"the same edges under {kind} ablation: {_scores(score)}, kl {score.kl:.3g}"


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
        worst = f"worst loss {row.worst_loss:.3g}, {percent(row.worst_accuracy, 1)} right"
        yield "" if i else "inside", f"{name}: {met}, {worst}"
    shares = [(row.rescaled, site) for site, row in inside.activations.items() if row.rescaled is not None]
    if shares:
        value, site = max(shares)
        yield "", f"activations: up to {percent(value, 1)} of the variance unexplained ({site}, rescaled)"
    heads = [(row.total_variation, head) for head, row in inside.attention.items()]
    if heads:
        value, head = max(heads)
        yield "", f"attention: up to {percent(value, 1)} goes elsewhere ({head})"
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
    yield from hanging("", f"Edges, and {metric} on the {split} split when one is removed")
    graph, group = graph_of(circuit), None
    for link in graph.links:
        removed = _removed(rows.get(place_name(link.place, link.is_bias), {}), metric)
        if link.is_bias:
            if group != "bias":
                group = "bias"
                yield from ("", f"{'Biases that stay':<58}{'value':>10}{'removed':>12}")
            yield f"  {shortened(f'{link.parameter}[{link.row}]', 55, 'begin'):<56}{link.weight:>10.4f}{removed}"
            continue
        source, target = graph.ends(link)
        if link.parameter != group:
            group = link.parameter
            title = f"{shortened(group, 28, 'begin')}  {_channels(source.site)} → {_channels(target.site)}"
            yield from ("", f"{shortened(title, 56, 'begin'):<58}{'weight':>10}{'removed':>12}")
        texts = [shortened(node.text, 26, "begin") for node in (source, target)]
        yield f"  {texts[0]:>26} → {texts[1]:<27}{link.weight:>10.4f}{removed}"


def _removed(values: Mapping[str, float], metric: str) -> str:
    return f"{values[metric]:>12.4f}" if metric in values else f"{'-':>12}"


def _channels(name: str) -> str:
    """What the channels of a site are called."""
    words = {"token": "token", "position": "position", "logits": "logit", "q": "query", "k": "key", "v": "value"}
    return words.get(site(name).kind, "neuron" if site(name).axis == "neuron" else "channel")


def _scores(score: Score) -> str:
    return f"{_share(score)} right ({_interval(score)}), loss {score.task_loss:.4f}"


def _share(score: Score) -> str:
    return percent(score.accuracy)


def _interval(score: Score) -> str:
    return interval_text(score.accuracy_interval)
