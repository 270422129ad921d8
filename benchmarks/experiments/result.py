"""What an experiment finds: a table, curves, and how both are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import plots
import report

from inrcodec.cli import console
from inrcodec.meta.config import TrainingConfig

COLORS = 10
"""Colors of matplotlib, before they begin anew: from there on lines are drawn differently."""

LINES = ("-", "--", ":")

Row = dict[str, float | str | None]
"""A line of a table: numbers in the units that the columns name."""


@dataclass(frozen=True)
class Panel:
    """Curves with one pair of axes: {label: {x: y}}."""

    curves: Mapping[str, Mapping[float, float]]
    x: str
    y: str
    x_scale: str = "linear"


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    title: what is compared, and in which unit. rows: {name: row}; a missing number is None.

    trainings: settings of what was trained for it.
    """

    title: str
    rows: Mapping[str, Row]
    panels: Sequence[Panel] = ()
    notes: Sequence[str] = ()
    trainings: Mapping[str, TrainingConfig] = field(default_factory=dict)

    def show(self) -> None:
        """Print the table to standard output."""
        columns = list(dict.fromkeys(key for row in self.rows.values() for key in row))
        print(f"\n{self.title}\n")
        console.table(
            ["", *columns],
            ([name, *(_cell(row.get(column)) for column in columns)] for name, row in self.rows.items()),
        )
        for note in self.notes:
            print(f"\n{note}")

    def content(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "title": self.title,
            "rows": self.rows,
            "panels": [{"x": panel.x, "y": panel.y, "curves": panel.curves} for panel in self.panels],
            "notes": list(self.notes),
            "trainings": {name: asdict(training) for name, training in self.trainings.items()},
        }

    def draw(self, path: Path) -> None:
        """Draw the curves, where there are some and matplotlib is installed."""
        figure = plots.new_figure(6.5 * len(self.panels), 4.5) if self.panels else None
        if figure is None:
            return
        for place, panel in zip(figure.subplots(1, len(self.panels), squeeze=False)[0], self.panels, strict=True):
            for number, (label, curve) in enumerate(panel.curves.items()):
                line = LINES[number // COLORS % len(LINES)]
                place.plot(list(curve), list(curve.values()), line, marker=".", label=label)
            place.set(xlabel=panel.x, ylabel=panel.y, xscale=panel.x_scale)
            place.grid(True, color="0.92")
            place.legend(fontsize=8)
        plots.save(figure, path)


def _cell(value: float | str | None) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    return report.significant(value, 4)
