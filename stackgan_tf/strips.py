"""Overviews: a grid, and strips in which one thing changes: a knob, the caption or the noise."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from stackgan_tf import images
from stackgan_tf.knobs import Knobs

COLUMNS = 8  # pictures side by side
FRAME_MILLISECONDS = 80


def grid(labels: Sequence[str], pictures: Sequence[Sequence[np.ndarray]], count: int) -> bytes:
    """A PNG with `count` pictures of each label, Stage-I's above Stage-II's.

    Args:
        pictures: of each in turn, uint8 (H, W, 3) of every stage; there may be fewer than labels
            ask for.
    """
    rows, lines = [], []
    for first in range(0, len(labels) * count, count):
        for start in range(first, first + count, COLUMNS):
            row = pictures[start:min(start + COLUMNS, first + count)]
            if row:
                rows += map(np.stack, zip(*row))
                label = labels[first // count] if start == first else ""
                lines += [label] + [""] * (len(row[0]) - 1)
    return images.encode_png(images.labelled_grid(rows, lines))


def sweep(generator, labels: Sequence[str], texts: Sequence, seeds: Sequence[int], name: str,
          values: Sequence[float], knobs: dict[str, float]) -> bytes:
    """A PNG with a labelled row of pictures a caption and value, the same seeds in each row.

    Args:
        generator: a generate.Generator.
        labels, texts: of each caption, what is written above its rows, and what `generate` takes.
        name, values: of the knob that changes.
        knobs: the others, fields of knobs.Knobs.
    """
    rows = [generator.generate([text] * len(seeds), seeds, **{**knobs, name: value})
            for text in texts for value in values]
    lines = [f"{name.replace('_', ' ')} {value:g}" + f": {label}" * bool(label)
             for label in labels for value in values]
    return images.encode_png(images.labelled_grid(rows, lines))


def interpolation(generator, labels: Sequence[str], texts: Sequence, seeds: Sequence[int],
                  steps: int, **knobs: float) -> list[bytes]:
    """A strip (PNG) and looping animations (GIF, PNG, WebP) from each (text, seed) to the next.

    Args:
        labels: what is written above the strip; the others are those of `between`.
    """
    made = {stage: between(generator, texts, seeds, steps, stage, **knobs)
            for stage in generator.stages}
    last = made[max(made)]
    shown = np.linspace(0, len(last) - 1, min(COLUMNS, len(last))).round().astype(int)
    strip = images.labelled_grid([pictures[shown] for pictures in made.values()],
                                 [" / ".join(labels)] + [""] * (len(made) - 1))
    endless = there_and_back(last)
    return [images.encode_png(strip), encode_animation(endless, "GIF"),
            encode_animation(endless, "PNG"), encode_animation(endless, "WEBP", quality=90)]


def between(generator, texts: Sequence, seeds: Sequence[int], steps: int, stage: int | None = None,
            **knobs: float) -> np.ndarray:
    """The pictures on the way from each (text, seed) to the next: uint8 (F, H, W, 3).

    The ends are the pictures that `generate` makes of them. Embeddings go along a straight line;
    noise and epsilon on an arc, see `slerp`.

    Args:
        generator: a generate.Generator, or a served one.
        texts, seeds: of each end, two or more; texts as `generate` takes them.
        steps: from one end to the next, 1 or more; F is (ends - 1) * steps + 1.
        knobs: fields of knobs.Knobs.
    """
    generator.check_knobs(Knobs(**knobs).turned())
    ends = generator.latents(seeds, **knobs)
    latents = {name: walk(rows, steps, slerp) for name, rows in ends.items()}
    embeddings = walk(generator.embed(texts, **knobs), steps, lerp) if generator.text else None
    return generator.decode(latents, embeddings, stage)


def there_and_back(frames: np.ndarray) -> list[np.ndarray]:
    """The frames of an endless animation, in which no end is shown twice."""
    return [*frames, *frames[-2:0:-1]]


def walk(ends: np.ndarray, steps: int, mix) -> np.ndarray:
    """(E, dim) -> ((E - 1) * steps + 1, dim), `mix(a, b, share)` between neighbors."""
    rows = [mix(a, b, step / steps) if step else a  # as it is: `slerp` rounds
            for a, b in zip(ends, ends[1:]) for step in range(steps)]
    return np.stack([*rows, ends[-1]]).astype(np.float32)


def lerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """The straight line from a (share 0) to b (share 1)."""
    return a + share * (b - a)


def slerp(a: np.ndarray, b: np.ndarray, share: float) -> np.ndarray:
    """The arc from a (share 0) to b (share 1): float (dim,). White, arXiv:1609.04468.

    On the straight line between two normal vectors lie shorter ones than are ever drawn.
    """
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    angle = np.arccos(np.clip(a @ b / lengths, -1.0, 1.0)) if lengths else 0.0
    if np.sin(angle) < 1e-4:  # they lie on one line
        return lerp(a, b, share)
    return (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / np.sin(angle)


def encode_animation(frames: Sequence[np.ndarray], kind: str, **options) -> bytes:
    """An endless animation; "PNG" is exact, "GIF" has 256 colors a frame.

    Args:
        frames: uint8 (H, W, 3) each.
        kind: GIF, PNG or WEBP; `options` are those of Pillow's writer.
    """
    first, *rest = map(Image.fromarray, frames)
    buffer = io.BytesIO()
    first.save(buffer, format=kind, save_all=True, append_images=rest, loop=0,
               duration=FRAME_MILLISECONDS, **options)
    return buffer.getvalue()
