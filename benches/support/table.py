"""Numbers as a person reads them."""

import statistics


def show(head, rows, words=1):
    """Prints a Markdown table: the first `words` columns to the left, the others to the right."""
    rows = [[str(cell) for cell in row] for row in [head, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    pad = lambda row: [cell.ljust(w) if i < words else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths))]
    rule = ["-" * w if i < words else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    for row in [pad(rows[0]), rule, *map(pad, rows[1:])]:
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def say(text):
    print(text, flush=True)


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def ratio(ours, theirs):
    """How often theirs fits into ours, paired; `None` where there is nothing to compare."""
    pairs = [a / b for a, b in zip(ours, theirs) if a is not None and b]
    return median(pairs)


def times(value):
    return "-" if value is None else f"{value:.2f}x"


def number(value, digits=0):
    return "-" if value is None else f"{value:,.{digits}f}"


def ms(value):
    return "-" if value is None else f"{value:.2f} ms"


def mb(kilobytes):
    return "-" if kilobytes is None else f"{kilobytes * 1024 / 1e6:.1f} MB"


def kb(kilobytes):
    return "-" if kilobytes is None else f"{kilobytes:.1f} KB"


def spread(values, digits=0):
    """The median, and what the runs were between."""
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    if len(values) == 1:
        return number(values[0], digits)
    return f"{number(median(values), digits)} ({number(min(values), digits)}..{number(max(values), digits)})"
