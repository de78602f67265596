"""An experiment's outcome: a table as Markdown and as PNG, and a contact sheet."""

import dataclasses
import glob
import os
import re

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stackgan_tf import images, score_report
from stackgan_tf.experiments.plan import Plan, Variant

LESS_IS_BETTER = ("kid", "fid", "frechet_distance")
_INK, _GRAY, _BLUE, _PALE = "#1a1a1a", "#8a8a8a", "#1f5fa8", "#a9c4e4"
_FONT, _ROW, _GAP, _STRIP = 14, 26, 16, 90  # pixels; _STRIP is an interval's width


@dataclasses.dataclass(frozen=True)
class Number:
    """A score of a variant over its seeds.

    Attributes:
        value: the mean over the seeds.
        low, high: of one seed, its 95 % interval, both the value where that is not known; else the
            smallest and the largest.
        seeds: how many.
    """

    value: float
    low: float
    high: float
    seeds: int

    def text(self, name: str) -> str:
        """With the interval in brackets, if there is one."""
        if self.low == self.high:
            return show(name, self.value)
        return (f"{show(name, self.value)} ({show(name, self.low)} to "
                f"{show(name, self.high)})")


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table: a variant's words, its steps, its scores, and what went wrong."""

    words: tuple[str, ...]
    steps: str
    seconds: str
    numbers: dict[str, Number]
    state: str = ""


def combine(scores: list[tuple[float, float | None, float | None]]) -> Number:
    """Of (value, low, high) of each seed."""
    values = [value for value, _, _ in scores]
    low, high = scores[0][1:] if len(scores) == 1 else (min(values), max(values))
    mean = float(np.mean(values))
    return Number(mean, *((mean, mean) if low is None else (low, high)), len(scores))


def rows(plan: Plan, runs: dict[str, dict]) -> list[Row]:
    """A Row of each variant of the table, and of real pictures and chance where they are known.

    Args:
        runs: as runner.Runner keeps them.
    """
    made = [_row(plan, variant, runs) for variant in plan.rows()]
    known = [record for run in runs.values() for record in run.get("records", ())]
    for words, find in (("real pictures", _real), ("chance", _chance)):
        if numbers := {name: Number(value, value, value, 0) for record in known
                       for name in score_report.values(record)
                       if (value := find(record, name)) is not None}:
            blank = ("",) * (len(plan.columns) - 1)
            made.append(Row((words, *blank), "", "", numbers))
    return made


def _row(plan, variant, runs):
    mine = [run for run in runs.values() if run["variant"] == variant.name
            and run["seed"] < plan.seeds]
    scored = [run for run in mine if "records" in run]
    found = {}
    for run in scored:
        for record in run["records"]:
            for name, value in score_report.values(record).items():
                found.setdefault(name, []).append(
                    (value, record[f"{name}/low"], record[f"{name}/high"]))
    failed = [f"seed {run['seed']} failed: {'; '.join(dict.fromkeys(run['errors'].values()))}"
              for run in mine if run.get("errors")]
    missing = plan.seeds - sum(bool("records" in run or run.get("errors")) for run in mine)
    state = failed + [f"{missing} of {plan.seeds} not made yet"] * (missing > 0)
    both = [one for one in (variant.below, variant) if one]
    parts = [_first(runs, one) for one in both]
    return Row(variant.row, " + ".join(f"{run['steps']:,}" for run in parts if "steps" in run),
               " + ".join(f"{run['step_seconds']:.3f}" for run in parts if "steps" in run),
               {name: combine(scores) for name, scores in found.items()}, "; ".join(state))


def _first(runs: dict, variant: Variant) -> dict:
    return next((run for run in runs.values() if run["variant"] == variant.name), {})


def _real(record, name):
    if name.startswith("accuracy/"):
        return record["classifier_accuracy"].get(name.partition("/")[2])
    return record.get(f"{name}/real")


def _chance(record, name):
    if name.startswith("accuracy/"):
        return record.get(name.replace("accuracy/", "chance/"))
    return record.get(f"{name}/chance")


def show(name: str, value: float) -> str:
    """A number with the digits that its kind needs."""
    return f"{value:.{4 if name.startswith('kid') else 3}f}" if abs(value) < 100 else f"{value:.1f}"


def in_words(records: list[dict]) -> str:
    """Scores in a line: "kid_... 0.0312, accuracy/mean 0.831"."""
    return ", ".join(f"{name} {show(name, value)}" for record in records
                     for name, value in score_report.values(record).items()
                     if not is_detail(name))


def is_detail(name: str) -> bool:
    """Whether a number stands in the second table: the accuracy of a single attribute."""
    return name.startswith("accuracy/") and name != "accuracy/mean"


def heading(name: str) -> str:
    return name + (" (less is better)" if name.startswith(LESS_IS_BETTER) else "")


def names_of(made: list[Row]) -> list[str]:
    """Of all numbers in the table, in the order in which they come."""
    return list(dict.fromkeys(name for row in made for name in row.numbers))


def notes(plan: Plan, runs: dict[str, dict]) -> list[str]:
    """What one must know to read the numbers."""
    said = [f"{plan.steps:,} steps for each row in all" if plan.steps else
            f"{plan.minutes:g} min of training steps for each row in all, by step times that "
            "were measured beforehand, in turn"]
    if below := {variant.below.share if variant.share == 1 else 0
                 for variant in plan.rows() if variant.below}:
        said[0] += ("; Stage-I and Stage-II share them" if below == {0} else
                    f"; the Stage-I below has {max(below):g} times as much besides")
    said[0] += f". Data: {plan.config(plan.variants[0]).dataset}."
    if record := next((run["records"][0] for run in runs.values() if run.get("records")), None):
        kind = "held-out captions" if record["split"] == "test" else "captions of training"
        said.append(f"{record['count']:,} pictures of {kind} (split {record['split']}), "
                    f"{record['real_count']:,} real ones, compared at {record['size']}x"
                    f"{record['size']}.")
    seeds = {number.seeds for row in rows(plan, runs) for number in row.numbers.values()} - {0}
    if several := sorted(seeds - {1}):
        said.append(f"Mean of {' or '.join(map(str, several))} seeds; the intervals go from the "
                    "smallest to the largest.")
    if 1 in seeds:
        said.append(f"{'Of other rows one' if several else 'One'} seed; the intervals are of 95 % "
                    "for other generated pictures: another seed's training may differ by more.")
    return said


def markdown(plan: Plan, runs: dict[str, dict]) -> str:
    """The table, the accuracy of single attributes in one of its own."""
    made = rows(plan, runs)
    names = names_of(made)
    main = [name for name in names if not is_detail(name)]
    details = [name for name in names if is_detail(name)]
    lines = [f"# {plan.name}", "", *_table(
        [*plan.columns, "steps", "seconds a step", *map(heading, main)],
        [[*row.words, row.steps, row.seconds, *_cells(row, main)] for row in made])]
    if details:
        lines += ["", *_table([*plan.columns, *details], [
            [*row.words, *_cells(row, details)] for row in made if row.numbers])]
    states = [f"- {', '.join(filter(None, row.words))}: {row.state}" for row in made if row.state]
    changed = [f"- {', '.join(filter(None, variant.row))}: " + (", ".join(
        f"{name}={value}" for name, value in variant.options.items()) or "nothing")
        for variant in plan.rows()]
    return "\n".join([*lines, "", *notes(plan, runs), *[""] * bool(states), *states, "",
                      "What each row changes:", "", *changed, ""])


def _cells(row, names):
    return [("" if name not in row.numbers else row.numbers[name].text(name)
             if row.numbers[name].seeds else show(name, row.numbers[name].value))
            for name in names]


def _table(head, lines):
    escaped = ([str(cell).replace("|", r"\|") for cell in line] for line in [head, *lines])
    first, *rest = (f"| {' | '.join(line)} |" for line in escaped)
    return [first, "|" + "---|" * len(head), *rest]


def draw(plan: Plan, runs: dict[str, dict]) -> np.ndarray:
    """The table as a picture, uint8 (H, W, 3): each score with its interval on a common scale."""
    made = rows(plan, runs)
    names = [name for name in names_of(made) if not is_detail(name)]
    font = ImageFont.load_default(size=_FONT)
    texts = [[*plan.columns, "steps"]] + [[*row.words, row.steps] for row in made]
    widths = [max(font.getlength(line[i]) for line in texts) + _GAP for i in range(len(texts[0]))]
    lefts = np.cumsum([_GAP, *widths])
    number = max([font.getlength(show(name, row.numbers[name].value)) for row in made
                  for name in row.numbers], default=0) + 8
    spans = [max(number + _STRIP, font.getlength(_short(name)[0])) + _GAP for name in names]
    places = np.cumsum([lefts[-1], *spans])
    said = [line for text in [*notes(plan, runs), *(
        f"{', '.join(filter(None, row.words))}: {row.state}" for row in made if row.state)]
        for line in images.wrap(text, font, int(places[-1]) - _GAP)]
    head = 2 * _ROW + 8
    size = (int(places[-1]) + _GAP, head + _ROW * (len(made) + 1) + 20 * len(said))
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for y, line in zip([10, *range(head, size[1], _ROW)], texts):
        for x, text in zip(lefts, line):
            pen.text((x, y), text, fill=_INK, font=font)
    pen.line((_GAP, head - 8, size[0] - _GAP, head - 8), fill=_GRAY)
    for name, x in zip(names, places):
        for i, line in enumerate(_short(name)):
            pen.text((x, 10 + i * 18), line, fill=_GRAY if i else _INK, font=font)
        scale = _scale([row.numbers[name] for row in made if name in row.numbers],
                       x + number, x + number + _STRIP)
        for i, row in enumerate(made):
            if name in row.numbers:
                _interval(pen, row.numbers[name], name, x, head + i * _ROW, scale, font)
    for i, line in enumerate(said):
        pen.text((_GAP, head + _ROW * len(made) + 12 + 20 * i), line, fill=_GRAY, font=font)
    return np.asarray(picture)


def _short(name):
    """A number's name on two lines: what it is, and by which network or which way is better."""
    found = re.match(r"(kid|frechet_distance|inception_score|precision|recall|density|coverage|"
                     r"diversity)_(\w+)", name)
    first, second = (found[1], found[2]) if found else (name, "")
    return [first + ", less is better" * name.startswith(LESS_IS_BETTER), second]


def _scale(numbers, left, right):
    """value -> x, of what all intervals span."""
    low, high = min(n.low for n in numbers), max(n.high for n in numbers)
    return lambda value: left + (value - low) / max(high - low, 1e-12) * (right - left - 8) + 4


def _interval(pen, number, name, x, y, scale, font):
    middle, real = y + _FONT // 2 + 2, number.seeds == 0
    pen.text((x, y), show(name, number.value), fill=_GRAY if real else _INK, font=font)
    if not real:
        pen.line((scale(number.low), middle, scale(number.high), middle), fill=_PALE, width=6)
    at = scale(number.value)
    pen.ellipse((at - 4, middle - 4, at + 4, middle + 4), fill=_GRAY if real else _BLUE)


def sheet_path(folder: str, run: str, i: int, stage: int = 2) -> str:
    """Where a run's picture of caption i for the contact sheet lies."""
    return os.path.join(folder, run, "contact_sheet", f"{i}_0_stage{stage}.png")


def sheet_pictures(folder: str, run: str) -> list[np.ndarray]:
    """A run's pictures for the contact sheet, [] if they are not complete."""
    if not os.path.exists(os.path.join(os.path.dirname(sheet_path(folder, run, 0)), "grid.png")):
        return []
    for stage in (2, 1):
        count = len(glob.glob(sheet_path(glob.escape(folder), run, "*", stage)))
        if count:
            return [np.asarray(Image.open(sheet_path(folder, run, i, stage)))
                    for i in range(count)]
    return []


def contact_sheet(plan: Plan, folder: str) -> np.ndarray | None:
    """The same captions, a row for each variant, of seed 0: uint8 (H, W, 3); None without any."""
    shown = {", ".join(f"{column} {word}".strip() for column, word in zip(
        ("", *plan.columns[1:]), variant.row) if word):
        sheet_pictures(folder, f"{variant.name}-seed0") for variant in plan.rows()}
    shown = {label: pictures for label, pictures in shown.items() if pictures}
    if not shown:
        return None
    sheet = images.labelled_grid([np.stack(pictures) for pictures in shown.values()], list(shown))
    path = os.path.join(folder, "captions.txt")
    if not os.path.exists(path):
        return sheet
    with open(path, encoding="utf-8") as file:
        captions = file.read().splitlines()
    width = sheet.shape[1] // len(captions)
    strips = [images.text_strip(caption, width, 2, 12) for caption in captions]
    height = max(len(strip) for strip in strips)
    strips = [np.pad(strip, ((0, height - len(strip)), (0, 0), (0, 0)), constant_values=255)
              for strip in strips]
    head = np.concatenate(strips, 1)
    head = np.pad(head, ((0, 0), (0, sheet.shape[1] - head.shape[1]), (0, 0)), constant_values=255)
    return np.concatenate([head, sheet])


def write(plan: Plan, runs: dict[str, dict], folder: str) -> None:
    """table.md, table.png and, of what is drawn by now, contact_sheet.png."""
    images.write(os.path.join(folder, "table.md"), markdown(plan, runs).encode())
    images.save_png(os.path.join(folder, "table.png"), draw(plan, runs))
    if (sheet := contact_sheet(plan, folder)) is not None:
        images.save_png(os.path.join(folder, "contact_sheet.png"), sheet)
