"""What notebooks show: figures in one look, legible on light and dark pages, and pieces of source.

Only notebooks import this module.
"""

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#b84f00", "#00795a", "#a83279"
GREY, LIGHT = "#5f6b76", "#c9d1d9"
PALETTE = (BLUE, ORANGE, GREEN, PURPLE, GREY)


def use_style() -> None:
    """Set matplotlib's defaults to the book's.

    The palette is that of Okabe & Ito (2008), darkened so that each colour contrasts at least 4.5 : 1
    with the figure's ground; the ground is opaque and light, so that a figure reads the same on a light
    and on a dark page.
    """
    plt.rcParams.update(
        {
            "figure.figsize": (7.0, 3.2),
            "figure.dpi": 110,
            "figure.facecolor": "#fbfcfd",
            "axes.facecolor": "#fbfcfd",
            "savefig.facecolor": "#fbfcfd",
            "figure.constrained_layout.use": True,
            "axes.prop_cycle": plt.cycler(color=PALETTE),  # type: ignore[attr-defined]
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.titlesize": "medium",
            "axes.titlelocation": "left",
            "axes.labelcolor": "#24292f",
            "xtick.color": GREY,
            "ytick.color": GREY,
            "text.color": "#24292f",
            "font.size": 10.5,
            "lines.linewidth": 1.8,
            "image.cmap": "Greys",
            "legend.frameon": False,
            "svg.hashsalt": "nnbrain",
        }
    )


def label_line(line: Line2D, text: str, *, at: float = 1.0, dx: float = 5, dy: float = 0) -> None:
    """Write `text` beside a line, in its colour, instead of a legend.

    Parameters
    ----------
    line : Line2D
        As `Axes.plot` returns it, drawn in data coordinates.
    text : str
    at : float
        Where on the line: 0 its first point, 1 its last.
    dx, dy : float
        Distance from that point, in points.
    """
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    i = round(at * (len(x) - 1))
    axes = line.axes
    assert isinstance(axes, Axes)
    axes.annotate(
        text,
        (x[i], y[i]),
        xytext=(dx, dy),
        textcoords="offset points",
        color=line.get_color(),
        va="center",
        ha="left" if dx >= 0 else "right",
        annotation_clip=False,
    )


def show_source(*functions: Callable[..., Any]) -> Any:
    """Return the source of functions, without their docstrings, for a notebook to display."""
    from IPython.display import Code

    sources = []
    for function in functions:
        source = textwrap.dedent(inspect.getsource(function))
        definition = ast.parse(source).body[0]
        assert isinstance(definition, ast.FunctionDef)
        lines = source.splitlines()
        if ast.get_docstring(definition):
            docstring = definition.body[0]
            del lines[docstring.lineno - 1 : docstring.end_lineno]
        sources.append("\n".join(lines))
    return Code("\n\n".join(sources), language="python")  # type: ignore[no-untyped-call]
