"""Curves in text, for a terminal: a line of blocks, and a plot of Braille dots, two by four to a character."""

import math
from collections.abc import Iterator, Sequence

from katib_callbacks.console import printable
from katib_callbacks.metrics.scalars import as_number

HEIGHT, MAX_WIDTH = 12, 120
"""Of a plot, in lines and characters."""

_BLOCKS = "▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # Unicode's numbers of a character's two columns
_BRAILLE = 0x2800
_MARGIN = 10


def sparkline(values: Sequence[float], width: int) -> str:
    """Return values as a line of at most ``width`` blocks; of more values each block has the last of its share."""
    if len(values) > width:
        values = [values[(number + 1) * len(values) // width - 1] for number in range(width)]
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = high / 2 - low / 2  # halves, since the whole may be greater than any number
    return "".join(_BLOCKS[round((value / 2 - low / 2) / span * (len(_BLOCKS) - 1)) if span else 3] for value in values)


def thinned(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """Return at most ``most`` points of a curve, as :func:`telling` chooses them."""
    return [points[index] for index in sorted(telling([value for _, value in points], most))]


def telling(values: Sequence[float], most: int) -> set[int]:
    """Return the places of at most ``most`` values: of each stretch the least and the greatest, and the last of all."""
    if len(values) <= most:
        return set(range(len(values)))
    stretches = max(1, (most - 1) // 2)
    kept = {len(values) - 1}
    for number in range(stretches):
        stretch = range(number * len(values) // stretches, (number + 1) * len(values) // stretches)
        kept |= {min(stretch, key=values.__getitem__), max(stretch, key=values.__getitem__)}
    return kept


def curves(rows: Sequence[tuple[str, str]], width: int) -> Iterator[str]:
    """Yield the lines of a plot for each metric of a trial's rows, which are names and values by time."""
    for name in dict.fromkeys(name for name, _ in rows):
        numbers = enumerate((as_number(value) for other, value in rows if other == name), 1)
        points = [(number, value) for number, value in numbers if value is not None and math.isfinite(value)]
        if not points:
            yield f"{printable(name)} has no number"
            continue
        values = [value for _, value in points]
        yield f"{printable(name)}: {values[-1]:g} at last, least {min(values):g}, greatest {max(values):g}"
        yield from text_plot(points, min(width, MAX_WIDTH), HEIGHT)


def text_plot(points: Sequence[tuple[int, float]], width: int, height: int) -> list[str]:
    """Return the lines of a plot, with its least and greatest value at the left and the steps below."""
    columns = max(1, width - _MARGIN - 2)
    first, last = points[0][0], points[-1][0]
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = high / 2 - low / 2
    cells = [[0] * columns for _ in range(height)]

    def place(step: float, value: float) -> tuple[int, int]:
        x = round((step - first) / (last - first) * (2 * columns - 1)) if last > first else 0
        y = round((high / 2 - value / 2) / span * (4 * height - 1)) if span else 2 * height
        return x, y

    before = None
    for step, value in points:
        x, y = place(step, value)
        for dot_x, dot_y in _between(before or (x, y), (x, y)):
            cells[dot_y // 4][dot_x // 2] |= _DOTS[dot_x % 2][dot_y % 4]
        before = x, y
    labels = {0: f"{high:.6g}", height - 1: f"{low:.6g}"} if high > low else {height // 2: f"{high:.6g}"}
    lines = [
        f"{labels.get(number, ''):>{_MARGIN}} ┤{''.join(chr(_BRAILLE + cell) for cell in row)}".rstrip("⠀")
        for number, row in enumerate(cells)
    ]
    steps = f"{first}" if last == first else f"{first}{last:>{max(1, columns - len(str(first)))}}"
    return [*lines, f"{'':>{_MARGIN}} └{'─' * columns}", f"{'':>{_MARGIN + 2}}{steps}"]


def _between(start: tuple[int, int], end: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the dots of a straight line."""
    (x0, y0), (x1, y1) = start, end
    count = max(abs(x1 - x0), abs(y1 - y0), 1)
    return [(round(x0 + (x1 - x0) * n / count), round(y0 + (y1 - y0) * n / count)) for n in range(count + 1)]
