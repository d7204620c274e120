"""Figures as SVG files that are the same at every run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MISSING = "figures need matplotlib: pip install 'onestage[figures]'"


def require_matplotlib() -> None:
    """`ImportError` with what to install, before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError(MISSING) from error


@contextmanager
def figure(file: Path, width: float, height: float) -> Iterator[Any]:
    """A matplotlib figure of this size in inches, written to `file` at the end."""
    require_matplotlib()
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # no pyplot: a figure of its own leaves the user's backend and settings alone
    with mpl.rc_context({"svg.hashsalt": "onestage", "svg.fonttype": "none", "font.size": 9}):
        drawn = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn
        file.parent.mkdir(parents=True, exist_ok=True)
        drawn.savefig(file, format="svg", metadata={"Date": None})
