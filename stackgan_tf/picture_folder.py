"""Folders of tens of thousands of generated pictures, as metrics read them.

Picture i is `000000i.png`, of caption i modulo their number and of noise s + i; what it was made of
stands in `sample.json`. The same command again makes what is missing.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Sequence

from stackgan_tf import images
from stackgan_tf.config import UserError
from stackgan_tf.knobs import Knobs
from stackgan_tf.parallel import in_order
from stackgan_tf.progress import Progress
from stackgan_tf.run_folder import lock

SETTINGS = "sample.json"
PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # what every complete PNG ends with


def name(i: int) -> str:
    return f"{i:07d}.png"


def fill(folder: str, count: int, generator, texts: Sequence, seed: int, **knobs: float) -> int:
    """Makes the pictures 0 ... count - 1 that are not there yet; returns how many those were.

    A file is complete or absent, whatever stops this. Writing goes on beside the generator.

    Args:
        generator: a generate.Generator.
        texts: captions or embeddings, as it takes them; [None] without text.
        knobs: fields of knobs.Knobs.

    Raises UserError if `folder` holds anything else, or pictures made of something else.
    """
    claimed = claim(folder, describe(generator, texts, seed, Knobs(**knobs)))
    missing = [i for i in range(count) if not is_complete(os.path.join(folder, name(i)))]
    bar = Progress("pictures", count - len(missing), count, every=500)

    def pictures():
        seeds = [seed + i for i in missing]
        made = generator.batches([texts[i % len(texts)] for i in missing], seeds, **knobs)
        return zip(missing, (picture for batch in made for picture in batch))

    def write(item):
        i, picture = item
        images.write(os.path.join(folder, name(i)), generator.png(picture))

    with claimed:
        try:
            for done, _ in enumerate(in_order(write, pictures()), count - len(missing) + 1):
                bar.update(done, {})
        finally:
            bar.close()
    return len(missing)


def describe(generator, texts, seed, knobs: Knobs) -> dict:
    """What every picture of the folder follows from, as {flag or word: value}."""
    digest = hashlib.sha256()
    for text in texts:
        data = b"" if text is None else text.encode() if isinstance(text, str) else text.tobytes()
        digest.update(len(data).to_bytes(8, "little") + data)
    return {"run": generator.run, "stage": generator.stage, "seed": seed,
            **dataclasses.asdict(knobs),
            "captions": f"{len(texts)}, SHA-256 {digest.hexdigest()[:16]}",
            "weights": generator.fingerprint}


def claim(folder: str, settings: dict):
    """Makes the folder, or checks that it is one of these settings; returns its lock."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        problem = "it is a file" if os.path.isfile(folder) else error.strerror
        raise UserError(f"--folder={folder} cannot be made: {problem}; choose another.") from error
    path = os.path.join(folder, SETTINGS)
    others = [file for file in os.listdir(folder) if not file.startswith(".")]
    if others and not os.path.exists(path):
        raise UserError(f"--folder={folder} holds {others[0]} and was not made by sample; choose "
                        "an empty folder, or a new one.")
    if os.path.exists(path):
        _settings_of(folder)  # which may be damaged: then nothing is written
        for file in others:  # metrics would read them
            if file.lower().endswith(images.ENDINGS) and not re.fullmatch(r"\d{7,}\.png", file):
                raise UserError(f"--folder={folder} holds {file} beside the pictures that sample "
                                "made there; move it away, or choose another folder.")
    claimed = lock(os.path.join(folder, ".lock"), f"another process is filling {folder}; wait for "
                   "it, or choose another --folder.")
    for file in os.listdir(folder):
        if file.startswith(".") and file.endswith(".tmp"):  # of a process that was killed
            os.remove(os.path.join(folder, file))
    if not os.path.exists(path):
        images.write(path, (json.dumps(settings, indent=2) + "\n").encode())
    before = {**dataclasses.asdict(Knobs()), **_settings_of(folder)}  # older ones have fewer knobs
    differences = [f"{key} {value} (was {before.get(key)})" for key, value in settings.items()
                   if before.get(key) != value]
    if differences:
        raise UserError(f"--folder={folder} holds pictures made with other settings: "
                        f"{'; '.join(differences)}; repeat those, or choose another --folder.")
    return claimed


def _settings_of(folder):
    path = os.path.join(folder, SETTINGS)
    with open(path, "rb") as file:
        try:
            return dict(json.load(file))
        except (ValueError, TypeError, RecursionError) as error:
            raise UserError(f"{path} is damaged ({error}); move {folder} away, or choose another "
                            "--folder.") from error


def is_complete(path: str) -> bool:
    """Whether a whole PNG is there: a power cut can leave a file of zeros under a final name."""
    try:
        with open(path, "rb") as file:
            file.seek(-len(PNG_END), os.SEEK_END)
            return file.read() == PNG_END
    except OSError:  # absent, or shorter
        return False
