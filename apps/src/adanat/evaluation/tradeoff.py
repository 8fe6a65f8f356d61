"""The figure of quality against cost."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adanat.plots import STYLE, policy_colours


@dataclass(frozen=True, kw_only=True)
class TradeoffPoint:
    """One policy at one number of steps.

    Attributes:
        curve: Points of one curve are joined in the order of their cost.
        cost: What an image costs.
        value: The figure of quality.
        half_width: Half its interval; None without one.
        note: Written beside the point.
    """

    curve: str
    cost: float
    value: float
    half_width: float | None
    note: str


def tradeoff_figure(points: Sequence[TradeoffPoint], *, cost: str, metric: str) -> Figure:
    """Draw quality against cost, a curve for each policy over its step counts."""
    colours = policy_colours(point.curve for point in points)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.6, 4.0), layout="constrained")
        axes = figure.subplots()
        for name, colour in colours.items():
            own = sorted((p for p in points if p.curve == name), key=lambda p: p.cost)
            axes.errorbar(
                [p.cost for p in own],
                [p.value for p in own],
                yerr=[p.half_width or 0.0 for p in own],
                color=colour,
                marker="o",
                markersize=5,
                capsize=3,
                label=name,
            )
            for point in own:
                below = any(p.cost == point.cost and p.value > point.value for p in own)
                axes.annotate(
                    point.note,
                    (point.cost, point.value),
                    xytext=(5, -11 if below else 5),
                    textcoords="offset points",
                    fontsize=7,
                    color=colour,
                )
        axes.margins(x=0.12)  # room for the last notes
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
        axes.set_xlabel(cost)
        axes.set_ylabel(metric)
        axes.legend(fontsize=8)
    return figure
