"""Takes the pictures of docs/results.md off a run of drawn_flowers: how its samples came about, and
what it draws right and wrong of held-out captions.

    python docs/results_pictures.py --run=default

They land in docs/progress.png and docs/failures.png.
"""

import dataclasses
import glob
import os
import re

import numpy as np
from absl import app, flags
from PIL import Image

from stackgan_tf import images
from stackgan_tf.attribute_judge import Judge, targets
from stackgan_tf.drawings import Drawings
from stackgan_tf.flower_drawing import ATTRIBUTES
from stackgan_tf.generate import Generator

flags.DEFINE_string("checkpoint_dir", "checkpoints", "folder of all runs")
flags.DEFINE_string("run", "default", "name of the run's folder")
flags.DEFINE_list("captions", "2,4,5", "progress: which captions of the sample grids, from 1 on")
flags.DEFINE_integer("most", 6, "progress: steps of a stage that are shown at most")
flags.DEFINE_integer("each", 6, "failures: pictures that are right, and as many that are wrong")
flags.DEFINE_string("output", os.path.dirname(os.path.abspath(__file__)), "folder to write in")

SIDE = 128


def main(_):
    o = flags.FLAGS
    for name, draw in (("progress", progress), ("failures", failures)):
        path = os.path.join(o.output, f"{name}.png")
        # 256 colors take a third of the bytes
        Image.fromarray(draw(o)).quantize(256).save(path, optimize=True)
        print(path, flush=True)


def progress(o):
    """A row for each caption and stage: its first picture, from step to step."""
    rows, labels = [], []
    for stage in (1, 2):
        paths = sorted(glob.glob(os.path.join(o.checkpoint_dir, o.run, f"stage{stage}", "samples",
                                              "step-*.png")))
        places = np.unique(np.linspace(0, len(paths) - 1, o.most).round().astype(int))
        shown = [paths[i] for i in places]
        steps = ", ".join(re.findall(r"step-0*(\d+)", " ".join(shown)))
        columns = [first_column(path, (64, 256)[stage - 1]) for path in shown]
        for caption in map(int, o.captions):
            # in a grid of Stage-II the frozen sketch stands above each picture
            at = (caption - 1) * stage + stage - 1
            rows.append(np.stack([images.resize_square(column[at], SIDE) for column in columns]))
            labels.append(f"Stage-{'I' * stage} after {steps} steps" if caption == int(
                o.captions[0]) else "")
    return images.labelled_grid(rows, labels)


def first_column(path, side, padding=2):
    """The pictures of a sample grid's first column, uint8 (rows, side, side, 3): the runs of so
    many lines that are not white throughout."""
    strip = np.asarray(Image.open(path).convert("RGB"))[:, padding:padding + side]
    filled = np.flatnonzero((strip != 255).any((1, 2)))
    runs = np.split(filled, np.flatnonzero(np.diff(filled) > 1) + 1)
    return np.stack([strip[run[0]:run[0] + side] for run in runs if side - 4 <= len(run) <= side])


def failures(o):
    """Pictures that show all that their captions name, then others, with what is wrong."""
    generator = Generator(o.checkpoint_dir, o.run)
    config = dataclasses.replace(generator.data_config(), image_size=int(
        generator.saved.outputs["images"].shape[1]))
    drawings = Drawings(generator, o.checkpoint_dir, config, "test", 0)
    judge = Judge(o.checkpoint_dir, config.data_dir, config.crop_margin)
    right, wrong = [], []
    for first in range(0, len(drawings.pictures) - 7, 8):
        rows = drawings.rows(first + 8)[first:]
        texts = drawings.texts(rows)
        pictures = generator.generate(texts, range(first, first + 8))
        read = judge.read(images.shrink(pictures, 64))
        true = targets(drawings.examples)[drawings.pictures[rows]]
        named = drawings.examples.extra["mentions"][drawings.pictures[rows], drawings.places[rows]]
        for picture, text, *values in zip(pictures, texts, read, true, named):
            picture = images.resize_square(picture, SIDE)
            if bad := mistakes(*values):
                wrong.append((picture, f"{text} | {bad}"))
            else:
                right.append((picture, text))
        if len(right) >= o.each and len(wrong) >= o.each:
            break
    return images.contact_sheet(*zip(*right[:o.each], *wrong[:o.each]), columns=o.each)


def mistakes(read, true, named):
    """Such as "petal_shape: strap"; what is drawn where the caption names another value. The count
    is left out: it is nearly always wrong."""
    return ", ".join(f"{name}: {ATTRIBUTES[name][read[i]]}" for i, name in enumerate(ATTRIBUTES)
                     if named[i] and read[i] != true[i] and name != "petal_count")


if __name__ == "__main__":
    app.run(main)
