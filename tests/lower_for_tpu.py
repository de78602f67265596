"""Lowers the whole train step of both stages for a TPU, without one; for tests/test_tpu.py.

Run with tensorflow-tpu instead of tensorflow: that one has the TPU's operations, and compiles for
`platform_name="TPU"` on any machine as far as HLO. It takes no variables, so weights go in and come
out as tensors, Stage-I is frozen to constants, and Adam is written out; all else is ours.
"""

import sys
import tempfile

import keras
import tensorflow as tf
from conftest import TINY
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from stackgan_tf import blocks, build, checkpoint, saved_parts, train_step
from stackgan_tf.config import resolve

BATCH = 4
CASES = {
    "stage 1": (1, {"condition_blocks": True}),
    "stage 1, R1": (1, {"discriminator_norm": "none", "r1_weight": 0.1}),
    "stage 1, modern": (1, {"recipe": "modern", "discriminator_norm": "spectral",
                            "minibatch_std": 2}),
    "stage 2": (2, {"unconditional_head": True, "image_size": 64}),
    "stage 2, bfloat16": (2, {"precision": "mixed_bfloat16", "image_size": 64,
                              "noise_injection": True}),
}


class PlainAdam:
    """Kingma & Ba 2015, with a Keras variable for each number it keeps."""

    def __init__(self, variables):
        self.weights = variables
        self.slots = [[keras.Variable(tf.zeros(v.shape)) for v in variables] for _ in range(2)]
        self.variables = sum(self.slots, [])

    def scale_loss(self, loss):
        return loss

    def apply(self, gradients, _):
        for weight, m, v, gradient in zip(self.weights, *self.slots, gradients, strict=True):
            m.assign(0.5 * m + 0.5 * gradient)
            v.assign(0.999 * v + 0.001 * gradient**2)
            weight.assign(weight - 2e-4 * m / (tf.sqrt(v) + 1e-8))


class Constant:
    """A Stage-I whose weights are constants of the graph."""

    def __init__(self, stage1):
        self.size, self.dim, self.path = stage1.size, stage1.dim, stage1.path
        self.names = list(stage1.inputs)
        self.function = convert_variables_to_constants_v2(stage1.function)

    def __call__(self, inputs):
        (images,) = self.function(**{name: inputs[name] for name in self.names})
        return images


def stage1():
    config = resolve({**TINY, "image_size": 16})
    gan, _ = build.gan(config)
    path = tempfile.mkdtemp()
    checkpoint.StageExport(config, gan).write(path, gan.generator)
    return Constant(saved_parts.Stage1(path))


def hlo(stage, changes):
    """The HLO text of a step."""
    config = resolve({**TINY, "stage": stage, "image_size": 32, **changes})
    gan, average = build.gan(config, stage1() if stage == 2 else None)
    adams = [PlainAdam(model.trainable_variables) for model in (gan.generator, gan.discriminator)]
    first_bad = keras.Variable([0, 0], dtype="int64", trainable=False)
    variables = [first_bad]
    for one in (gan.generator, gan.discriminator, average, *adams):
        variables += one.variables

    @tf.function(jit_compile=True)
    def step(weights, batch, number):
        with keras.StatelessScope(list(zip(variables, weights, strict=True))) as scope:
            one = train_step.make_train_step(gan, *adams, average, 0.9, config.seed,
                                             first_bad=first_bad)
            parts = one.python_function(batch, number)
            return parts, [scope.get_current_value(v) for v in variables]

    size, dim = config.image_size, config.embedding_dim
    batch = {"real_images": tf.zeros([BATCH, size, size, 3], tf.uint8),
             "flips": tf.zeros([BATCH], tf.bool), "embeddings": tf.zeros([BATCH, dim]),
             "mismatched_embeddings": tf.zeros([BATCH, dim])}
    weights = [tf.convert_to_tensor(v) for v in variables]
    return lower(step, weights, batch, tf.constant(0, tf.int64))


def lower(function, *arguments):
    return function.experimental_get_compiler_ir(*arguments)(stage="hlo", platform_name="TPU")


def main():
    blocks.PRODUCT_CHANNELS = 16  # so that both forms of a convolution are there
    for name, (stage, changes) in CASES.items():
        text = hlo(stage, changes)
        print(f"{name}: {len(text.splitlines())} lines, dynamic sizes: {text.count('<=')}")
    try:  # that it refuses anything at all
        lower(tf.function(lambda x: tf.strings.length(tf.strings.as_string(x)), jit_compile=True),
              tf.constant(1))
    except (tf.errors.OpError, ValueError) as error:
        print("refused:", str(error).splitlines()[0][:200])


if __name__ == "__main__":
    print(f"tensorflow {tf.__version__}", file=sys.stderr)
    main()
