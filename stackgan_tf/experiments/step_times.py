"""What an experiment asks before its trainings: how long a step of each variant takes, which of its
metrics the data has enough for, and which captions its contact sheet shows. A process of its own,
so that its memory, and a GPU's, is free again; the experiment's command starts it:

    python -m stackgan_tf.experiments.step_times --run=ablation

reads checkpoints/ablation/experiment.json and writes step_times.json beside it, {variant:
{"seconds": of the fastest round, "rounds": of each}}, metrics.json, and captions.txt (captions.npy,
vectors, of data that has these).

All variants are measured in turn, for a few seconds each, again and again. The fastest round
counts: whatever else is at work on the machine can only slow a step down (with two trainings beside
them, the medians of two variants of equal work were 15 % apart, the fastest rounds 0.3 %). The step
is the training's own, its pictures are random bytes; reading data, reports and checkpoints are not
in it. Of several GPUs one is timed.
"""

import dataclasses
import io
import json
import os
import tempfile
import time

import numpy as np
import tensorflow as tf

from stackgan_tf import build, checkpoint, devices, distribution, saved_parts, shown_texts, train
from stackgan_tf.below import image_encoder_beside
from stackgan_tf.config import Config, UserError, define_flags, given_flags, resolve, run_cli
from stackgan_tf.disk import write_whole
from stackgan_tf.drawings import Split
from stackgan_tf.evaluation import Options, measurable
from stackgan_tf.joint_space import JointSpace
from stackgan_tf.run_folder import Part
from stackgan_tf.sources import read_json

ROUNDS, SECONDS = 6, 4.0  # of each variant: so many rounds of at least so long
STEPS = 4  # between two looks at the clock: a GPU need not wait for Python
CAPTIONS = 6  # on the contact sheet


class Timed(train.Trainer):
    """A stage's networks and its train step, on random pictures: nothing is read or written."""

    def __init__(self, config: Config, frozen_stage1: saved_parts.Stage1 | None):
        self.config, self.cluster = config, distribution.Cluster()
        self.cluster.check(config)
        self.part = Part(config.checkpoint_dir, config.run, f"stage{config.stage}")
        space = JointSpace(
            image_encoder_beside(config.text_encoder)) if config.matching_weight else None
        self._make_networks(frozen_stage1, 1.0, space)
        self.batch, self.done = random_batch(config), 0
        self.steps(1)  # traced now

    def steps(self, count):
        for _ in range(count):
            parts = self.train_step(self.batch, tf.constant(np.int64(self.done)))
            self.done += 1
        float(parts["loss/generator"])  # waits for the device

    def seconds_per_step(self, seconds: float) -> float:
        """Mean over at least so many seconds."""
        begin, first = time.perf_counter(), self.done
        while time.perf_counter() - begin < seconds or self.done == first:
            self.steps(STEPS)
        return (time.perf_counter() - begin) / (self.done - first)


def random_batch(config: Config) -> dict[str, tf.Tensor]:
    """As pipeline.Batches makes them."""
    generator = np.random.default_rng(0)
    rows, size = config.batch_size, config.image_size
    batch = {"real_images": generator.integers(256, size=(rows, size, size, 3), dtype=np.uint8)}
    if config.embedding_dim:
        for name in ("embeddings", "mismatched_embeddings"):
            batch[name] = generator.standard_normal((rows, config.embedding_dim), np.float32)
    return {name: tf.constant(value) for name, value in batch.items()}


def measure(configs: dict[str, Config], below: dict[str, Config], rounds: int = ROUNDS,
            seconds: float = SECONDS) -> dict[str, list[float]]:
    """{variant: seconds a step, of each round}, those of one configuration measured once.

    Args:
        configs: {variant: its settings}.
        below: {variant of Stage-II: settings of its Stage-I}.
    """
    keys = {name: (config, below.get(name)) for name, config in configs.items()}
    timed = {}
    with tempfile.TemporaryDirectory() as folder:
        for key in keys.values():
            if key not in timed:
                print(f"building network {len(timed) + 1} of {len({*keys.values()})}", flush=True)
                timed[key] = Timed(key[0], key[1] and untrained_stage1(key[1], folder))
        found = {key: [] for key in timed}
        for number in range(rounds):
            print(f"step times: round {number + 1} of {rounds}", flush=True)
            for key, one in timed.items():
                found[key].append(one.seconds_per_step(seconds))
    return {name: found[key] for name, key in keys.items()}


def untrained_stage1(config: Config, folder: str) -> saved_parts.Stage1:
    """A Stage-I as it will lie under Stage-II; how long it takes does not hang on its weights."""
    path = tempfile.mkdtemp(dir=folder)
    game = build.gan(config)[0]
    checkpoint.StageExport(config, game).write(os.path.join(path, "saved_model"), game.generator)
    return saved_parts.Stage1(os.path.join(path, "saved_model"))


def settle(options: dict, stage: int) -> Config:
    """The settings of a variant, with the size of its embeddings; alike ones are equal."""
    config = resolve({**options, "stage": stage})
    dim = build.embedding_dim(config) if config.embedding_dim else 0
    if config.text_encoder:
        encoder = saved_parts.TextEncoder(config.text_encoder)
        encoder.check()  # before the steps are timed
        dim = encoder.dim
    return dataclasses.replace(config, embedding_dim=dim or config.embedding_dim)


def write_captions(config: Config, folder: str) -> None:
    """Held-out ones, as the sample grids show them."""
    encoder = saved_parts.TextEncoder(config.text_encoder) if config.text_encoder else None
    texts = shown_texts.read(config, CAPTIONS, encoder)[0]
    if encoder:
        lines = [" ".join(caption.split()) for caption in texts.captions]  # of some data several
        write_whole(os.path.join(folder, "captions.txt"), "\n".join(lines + [""]).encode())
    else:
        buffer = io.BytesIO()
        np.save(buffer, texts.embeddings)
        write_whole(os.path.join(folder, "captions.npy"), buffer.getvalue())


def metrics(scoring: dict, config: Config) -> list[str]:
    """Those of the plan that its data has enough for; UserError for one that was asked for."""
    asked = scoring["metrics"] if scoring["asked"] else ()
    split = Split(config, "", 0, text=True, embeds=not config.precomputed_embeddings)
    return measurable(scoring["metrics"], split, Options(metrics=asked, count=scoring["count"]))


def main(_):
    given = given_flags()
    folder = os.path.join(given.get("checkpoint_dir", Config.checkpoint_dir),
                          given.get("run", Config.run))
    stored = read_json(os.path.join(folder, "experiment.json"))
    if stored is None:
        raise UserError(f"{folder} holds no experiment; start one, such as python -m "
                        "stackgan_tf.experiments.ablation, which times its steps itself.")
    path, known = os.path.join(folder, "step_times.json"), stored["variants"]
    times = read_json(path) or {}
    configs = {name: settle({**options, "text_encoder": stored["text_encoder"]},
                            known[name]["stage"]) for name, options in stored["options"].items()}
    first = next(iter(configs.values()))
    devices.settle_determinism(first)
    write_whole(os.path.join(folder, "metrics.json"), json.dumps(
        {"scoring": stored["scoring"], "metrics": metrics(stored["scoring"], first)}).encode())
    new = {name: config for name, config in configs.items() if name not in times}
    if not any(os.path.exists(os.path.join(folder, f"captions.{end}")) for end in ("txt", "npy")):
        write_captions(first, folder)
    if not new:
        return
    below = {name: configs[known[name]["below"]] for name in new if known[name]["below"]}
    for name, rounds in measure(new, below).items():
        times[name] = {"seconds": min(rounds), "rounds": rounds}
    write_whole(path, (json.dumps(times, indent=2) + "\n").encode())


if __name__ == "__main__":
    define_flags(only=("run", "checkpoint_dir"))
    run_cli(main)
