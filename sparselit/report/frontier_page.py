"""The frontier as a page that opens from disk: hovering over a run names it and gives its command."""

from __future__ import annotations

import shlex

from sparselit.errors import SparselitError
from sparselit.report.frontier import CAPABILITIES, SIZES, Frontier, is_dense


def page(frontier: Frontier) -> str:
    """One HTML file without any other.

    Args:
        frontier: what is shown.

    Raises:
        SparselitError: plotly is not installed.
    """
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise SparselitError("an html figure needs plotly: pip install 'sparselit[plots]'; or name a .png") from None
    figure = go.Figure()
    series = {f"{parameters:,} parameters": names for parameters, names in frontier.sizes.items()}
    series["dense"] = [name for name, runs in frontier.by_setting.items() if is_dense(runs[0])]
    for label, names in series.items():
        runs = [
            (run, cost)
            for name in names
            for run, cost in zip(frontier.by_setting[name], frontier.costs[name], strict=True)
        ]
        if not runs:
            continue
        texts = [
            "<br>".join(
                [f"{run.setting}, seed {run.seed}", shlex.join(["sparselit", "fit", "--ckpt_path", run.folder])]
            )
            for run, _ in runs
        ]
        figure.add_scatter(
            x=[cost[1] for _, cost in runs], y=[cost[0] for _, cost in runs], mode="markers", name=label, text=texts,
            hovertemplate="%{text}<br>%{x:,.0f}, %{y:.4g}<extra></extra>",
        )  # fmt: skip
    best = [frontier.centres[name] for name in frontier.best]
    figure.add_scatter(
        x=[cost[1] for cost in best], y=[cost[0] for cost in best], mode="lines", name="front of the means",
        line={"shape": "hv", "dash": "dot", "color": "#555555"}, hoverinfo="skip",
    )  # fmt: skip
    figure.update_xaxes(type="log", title=SIZES[frontier.size])
    figure.update_yaxes(title=CAPABILITIES[frontier.capability])
    figure.update_layout(template="plotly_white", title="<br>".join(frontier.words()[:2]), title_font_size=11)
    text: str = figure.to_html(include_plotlyjs=True, full_html=True)
    return text
