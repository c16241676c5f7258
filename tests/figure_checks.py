"""What every figure must be to be printed, whatever it shows."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure

from skill1.analysis.figures.style import COLUMN, PAGE


def texts(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(matplotlib.text.Text))


def assert_printable(figure: Figure) -> None:
    """As wide as one column or two, text of 7 points or more, nothing beyond the edges, no legend entry twice, white."""
    assert figure.get_figwidth() in (COLUMN, PAGE)
    figure.draw_without_rendering()  # lays it out
    written = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    assert min(text.get_fontsize() for text in written) >= 7
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert -0.01 <= min(drawn.x0, drawn.y0) and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01, drawn
    for legend in figure.findobj(matplotlib.legend.Legend):
        names = [text.get_text() for text in legend.get_texts()]
        assert len(set(names)) == len(names)
    assert figure.get_facecolor() == (1, 1, 1, 1)  # readable on a dark page too
