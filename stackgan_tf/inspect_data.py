"""Shows what is in a data set, before anybody spends a day training on it.

    python -m stackgan_tf.inspect_data --dataset=folder --data_dir=DIR
    python -m stackgan_tf.inspect_data --preset=birds --data_dir=DIR --output=birds_report

Reads every picture and caption once: sizes, classes, captions, files that cannot be read, copies,
and what looks wrong, with its remedy. The report is printed and lands, as report.json beside
contact_sheet.png, in --output or a new folder inspect_<dataset>. The 4,000 embedded flowers take
ten seconds on two cores; 50,000 pictures with five captions each add 60 MB of memory.
"""

import collections
import dataclasses
import hashlib
import json
import math
import os
import re
import textwrap
from collections.abc import Iterator

import numpy as np
from absl import flags

from stackgan_tf import (
    __version__,
    build,
    config,
    data_report,
    data_report_text,
    images,
    parallel,
)
from stackgan_tf.config import Config, UserError
from stackgan_tf.progress import Progress

SIZE = 160  # side of a picture on the contact sheet
CELLS = 24  # pictures on it
FILES = ("report.json", "contact_sheet.png")


def main(_):
    # as Stage-II gets the data: some data sets keep larger pictures for it
    settings = config.resolve({**config.given_flags(), "stage": 2})
    output = os.path.expanduser(flags.FLAGS.output)
    if output:
        refuse_to_overwrite(output)
    made = not os.path.exists(output)
    folder = make_folder(output, settings.dataset)  # first: reading may take an hour
    try:
        report, sheet = inspect(settings)
    except BaseException:
        if made:
            os.rmdir(folder)
        raise
    write(report, sheet, folder)
    print(data_report_text.table(report))
    print(f"\n{os.path.join(folder, FILES[0])}\n{os.path.join(folder, FILES[1])}")


def inspect(settings: Config) -> tuple[dict, "ContactSheet"]:
    """The report and the contact sheet; UserError if neither split can be read."""
    sheet, seen, missing, splits = ContactSheet(), {}, {}, []
    without_split = False
    # all that cannot be read is listed here, however much training would put up with
    patient = dataclasses.replace(settings, max_unreadable=2**62)
    for name in ("train", "test"):
        try:
            split = _read(patient, name, sheet, seen)
        except UserError as error:
            missing[name] = str(error)
            continue
        if split is None:
            without_split = True
        else:
            splits.append(split)
    if not splits:
        raise UserError(missing.get("train", missing.get("test")))
    report = {
        "dataset": settings.dataset, "data_dir": settings.data_dir, "version": __version__,
        "without_split": without_split, "missing": missing,
        "splits": {split.name: split.report() for split in splits},
        "both_splits": data_report.between(splits),
    }
    return {**report, "warnings": data_report_text.warnings(report, settings.max_unreadable)}, sheet


def _read(settings, name, sheet, seen) -> data_report.Split | None:
    """Goes through a split; None if its pictures are the other split's."""
    split = data_report.Split(name, seen)
    if name == "test" and not build.has_test(settings):
        return None
    with build.plain_errors(settings):
        elements = build.raw_elements(settings, name)
    total = len(elements) if hasattr(elements, "__len__") else None
    bar = Progress(f"reading {name}", 0, total, unit=" pictures")
    try:
        with build.plain_errors(settings):
            for i, found in enumerate(_measured(elements, name, sheet)):
                split.add(found)
                bar.update(i + 1)
    except UserError as error:
        split.stopped = str(error)
    finally:
        bar.close()
    if not split.count:
        first = split.unreadable[0] if split.unreadable else {"file": name, "reason": "is empty"}
        raise UserError(split.stopped or f"none of {len(split.unreadable)} pictures can be read; "
                        f"the first: {first['file']}: {first['reason']}")
    return split


def _measured(elements, name, sheet) -> Iterator[dict]:
    """`data_report.measure` of each element, in order, by a few threads; few wait in memory."""
    stopped = []

    def keyed():
        try:
            for index, element in enumerate(elements):
                key = sheet.key(name, index, element)
                yield key, element, SIZE if "error" not in element and sheet.wants(key) else 0
        except Exception as error:  # raised when what was read before it has been counted
            stopped.append(error)

    for key, found in parallel.in_order(
            lambda one: (one[0], data_report.measure(*one[1:])), keyed()):
        thumbnail = found.pop("thumbnail", None)
        if thumbnail is not None:
            sheet.offer(key, name, found, thumbnail)
        yield found
    if stopped:
        raise stopped[0]


class ContactSheet:
    """A seeded choice of up to CELLS pictures, spread over classes, found in one pass.

    Every picture and class draws a number from its name; the smallest stay. So the choice depends
    on neither time nor threads, and no more than CELLS pictures are kept.
    """

    def __init__(self):
        self.kept = {}  # {key: (title, caption, thumbnail)}

    def key(self, split: str, index: int, element: dict) -> tuple:
        """(number of the class, number of the picture)."""
        group = str(element.get("label", ""))
        return _draw(f"class {group}"), _draw(f"{split} {index}")

    def _chosen(self, keys) -> set:
        """Round after round, the next picture of each class, until CELLS are full."""
        groups = collections.defaultdict(list)
        for key in sorted(keys):
            groups[key[0]].append(key)
        rounds = sorted((place, key) for group in groups.values()
                        for place, key in enumerate(group))
        return {key for _, key in rounds[:CELLS]}

    def wants(self, key: tuple) -> bool:
        return len(self.kept) < CELLS or key in self._chosen([*self.kept, key])

    def offer(self, key: tuple, split: str, found: dict, thumbnail) -> None:
        captions = found["captions"]
        caption = captions[key[1] % len(captions)] if captions else ""
        title = ", ".join(str(x) for x in (split, found["class_name"] or found["label"])
                          if x is not None)
        self.kept[key] = (title, caption, thumbnail)
        self.kept = {key: self.kept[key] for key in self._chosen(self.kept)}

    def draw(self) -> np.ndarray:
        """uint8 (H, W, 3)."""
        cells = [self.kept[key] for key in sorted(self.kept)]
        labels = [f"[{title}] {textwrap.shorten(caption, 200)}" for title, caption, _ in cells]
        columns = min(6, math.ceil(len(cells) ** 0.5) + 1)
        return images.contact_sheet([picture for _, _, picture in cells], labels, columns)


def _draw(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def refuse_to_overwrite(folder: str) -> None:
    for name in FILES:
        if os.path.exists(os.path.join(folder, name)):
            raise UserError(f"--output={folder} already holds {name}; choose another folder, or "
                            "move it away.")


def make_folder(output: str, dataset: str) -> str:
    """Makes `output`, or if it is empty the first of inspect_<dataset>, -2, ... not there yet."""
    wanted = "inspect_" + re.sub(r"[^\w.-]+", "_", dataset)
    number, folder = 1, output or wanted
    while True:
        try:
            os.makedirs(folder, exist_ok=bool(output))
            return folder
        except FileExistsError:
            if output:
                raise UserError(f"--output={output} is a file; choose another folder.") from None
            number += 1
            folder = f"{wanted}-{number}"
        except OSError as error:
            raise UserError(f"cannot make {folder}: {error.strerror}; choose another "
                            "--output.") from error


def write(report: dict, sheet: ContactSheet, folder: str) -> None:
    try:
        images.write(os.path.join(folder, FILES[0]), (json.dumps(report, indent=1) + "\n").encode())
        images.save_png(os.path.join(folder, FILES[1]), sheet.draw())
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror or error}; choose another "
                        "--output or make room.") from error


def define_own_flags() -> None:
    # the fields of config.py's section "data", whatever data sets have added to it
    names = [field.name for field in dataclasses.fields(Config)]
    data = names[names.index("dataset"):names.index("text_encoder")]
    config.define_flags(only=("preset", *data))
    flags.DEFINE_string("output", "", "folder of the report; '': a new inspect_<dataset>")


if __name__ == "__main__":
    define_own_flags()
    config.run_cli(main)
