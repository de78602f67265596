"""The process that times stackgan_tf for benchmarks/throughput.py."""

import dataclasses
import gc
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf  # noqa: E402

from benchmarks import op_profile  # noqa: E402
from benchmarks.processes import peak_memory, serve, timed  # noqa: E402
from stackgan_tf import build, checkpoint, devices, saved_parts  # noqa: E402
from stackgan_tf.config import Config  # noqa: E402
from stackgan_tf.train_step import make_train_step  # noqa: E402

MATMUL_SIZE = 4096


class Side:
    """Cases are loaded once, under a name, and then run as often as asked.

    Args:
        folder: where SavedModels are put.
    """

    def __init__(self, folder):
        self.folder = folder
        self.cases = {}  # name: (function, pictures a call, concrete function)
        self.made = {}  # what several batch sizes share

    def load(self, name, settings, batch_size, mode, learning_rate):
        config = Config(**settings)
        key = mode, config
        if key not in self.made:
            make = make_training if mode == "train" else make_inference
            self.made[key] = make(config, os.path.join(self.folder, f"{name}-{os.getpid()}"),
                                  learning_rate)
            gc.collect()
        self.cases[name] = (*self.made[key](batch_size), batch_size)
        self.cases[name][0]()  # traces

    def load_matmul(self, name, dtype):
        a = tf.random.normal([MATMUL_SIZE, MATMUL_SIZE], dtype=dtype)
        b = tf.random.normal([MATMUL_SIZE, MATMUL_SIZE], dtype=dtype)
        # one number is fetched, so that the product is done where it is done elsewhere
        self.cases[name] = lambda: float(tf.matmul(a, b)[0, 0]), None, 1
        self.cases[name][0]()
        return 2 * MATMUL_SIZE**3

    def run(self, name, seconds):
        """[pictures, seconds] of at least one call, and of as many as fit in `seconds`."""
        call, _, batch_size = self.cases[name]
        calls, taken = timed(call, seconds)
        return calls * batch_size, taken

    def peak(self, name, calls):
        """Bytes that the process held at most during so many calls."""
        return peak_memory(self.cases[name][0], calls)

    def profile(self, name):
        """[(operation's type, its name in the graph, its output's shape, seconds)], longest first,
        and the seconds that passed."""
        call, function, _ = self.cases[name]
        call()
        return op_profile.record(call, function)

    def auto_precision(self, settings):
        """What --precision=auto is on this machine."""
        return devices.precision(Config(**{**settings, "precision": "auto"}))


def _networks(config, folder):
    """The game and the moving average, in Stage-II on top of an exported Stage-I."""
    if config.stage == 1:
        return build.gan(config)
    path = os.path.join(folder, "stage1")
    below = dataclasses.replace(config, stage=1, image_size=64, unconditional_head=False)
    game, _ = build.gan(below)
    checkpoint.StageExport(below, game).write(path, game.generator)
    return build.gan(config, saved_parts.Stage1(path))


def make_training(config, folder, learning_rate):
    """batch_size -> (a function that takes one step, its graph)."""
    game, average = _networks(config, folder)
    adams = [build.optimizer(config, build.learning_rate(config, learning_rate, 1000.0), network)
             for network in (game.generator, game.discriminator)]
    step = make_train_step(game, *adams, average, config.ema_decay, config.seed,
                           devices.jit_compile(config))

    def make(batch_size):
        size, steps = config.image_size, iter(range(10**9))
        images = tf.random.uniform([batch_size, size, size, 3], 0, 256, tf.int32)
        batch = {"real_images": tf.cast(images, tf.uint8),
                 "embeddings": tf.random.normal([batch_size, config.embedding_dim]),
                 "mismatched_embeddings": tf.random.normal([batch_size, config.embedding_dim])}

        def call():
            parts = step(batch, tf.constant(next(steps), tf.int64))
            return float(parts["loss/discriminator"]), float(parts["loss/generator"])

        return call, lambda: step.get_concrete_function(batch, tf.constant(0, tf.int64))

    return make


def make_inference(config, folder, _):
    """batch_size -> (a function that draws pictures as an export with --constant_weights does, its
    graph)."""
    game, _ = _networks(config, folder)
    path = os.path.join(folder, "saved_model")
    checkpoint.StageExport(config, game).write(path, game.generator)
    saved = saved_parts.SavedPart(path, "the exported stage")
    frozen = saved_parts.with_constants(saved.function)

    def make(batch_size):
        inputs = {name: tf.random.normal([batch_size, spec.shape[1]])
                  for name, spec in saved.inputs.items()}
        return lambda: frozen(inputs)["images"].numpy(), lambda: frozen.function

    return make


if __name__ == "__main__":
    serve(lambda: Side(sys.argv[1]))
