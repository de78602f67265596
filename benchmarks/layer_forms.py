"""The two forms that a layer can run in, layer by layer: sets the rules at the top of
blocks.py and upsampling.py.

    python -m benchmarks.layer_forms

Prints milliseconds, forward and forward with both gradients, measured in turn; the median of the
rounds counts. Layers are those of the paper's Stage-I and Stage-II:

  up        the enlarged map with a 3x3 convolution ("plain"), and one transposed 4x4 convolution
            ("fast"); upsampling.FUSED_FROM is the side from which the second is taken
            (FUSED_FROM_16_BITS, found on a CPU with AMX)
  down      a convolution ("plain"), and the product of its patches with the kernel ("fast");
            blocks.PRODUCT_CHANNELS and PRODUCT_SIDE
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: E402
from absl import app, flags  # noqa: E402

from stackgan_tf import blocks, upsampling  # noqa: E402

flags.DEFINE_integer("batch_size", 4, "pictures", lower_bound=1)
flags.DEFINE_integer("rounds", 7, "measurements of each form", lower_bound=1)

# (side of the input, channels in, channels out)
UP = ((4, 1024, 512), (8, 512, 256), (16, 256, 128), (16, 512, 256), (32, 128, 64),
      (32, 256, 128), (64, 128, 64), (128, 64, 32))
# (..., kernel, stride)
DOWN = ((8, 256, 512, 4, 2), (16, 512, 1024, 4, 2), (8, 1024, 2048, 4, 2), (4, 2048, 1024, 3, 1),
        (4, 1024, 512, 3, 1))


def forms(inner, outer, kernel=None, stride=None):
    """{name: form(x, kernel)} and the kernel's shape."""
    if kernel is None:
        layer = upsampling.UpsampleConv(outer)
        layer.build((None, None, None, inner))
        return {"plain": layer.plain, "fast": layer.fused}, (3, 3, inner, outer)
    return {"plain": lambda x, k: tf.nn.conv2d(x, k, stride, "SAME"),
            "fast": lambda x, k: blocks.convolution_as_product(x, k, stride)}, (
                kernel, kernel, inner, outer)


def calls(side, inner, *rest, batch_size, dtype):
    """{(form, "forward" or "both"): function to time}."""
    named, shape = forms(inner, *rest)
    x = tf.cast(tf.random.normal([batch_size, side, side, inner]), dtype)
    kernel = tf.cast(0.02 * tf.random.normal(shape), dtype)
    made = {}
    for name, form in named.items():
        def both(x, kernel, form=form):
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                y = form(x, kernel)
            return tape.gradient(y, [x, kernel])

        for what, function in (("forward", tf.function(form)), ("both", tf.function(both))):
            made[name, what] = lambda f=function: [t.numpy() for t in tf.nest.flatten(f(x, kernel))]
    return made


def main(_):
    values = flags.FLAGS
    print("type      layer  side   in   out  forward plain/fast   with gradients plain/fast  (ms)")
    for dtype in (tf.float32, tf.bfloat16):
        for name, layer in [("up", row) for row in UP] + [("down", row) for row in DOWN]:
            made = calls(*layer, batch_size=values.batch_size, dtype=dtype)
            taken = {key: [] for key in made}
            for number in range(values.rounds + 1):
                for key, call in made.items():
                    begin = time.perf_counter()
                    call()
                    if number:  # the first call traces
                        taken[key].append(1e3 * (time.perf_counter() - begin))
            ms = {key: statistics.median(times) for key, times in taken.items()}
            print(f"{dtype.name:8s}  {name:5s}  {layer[0]:4d}  {layer[1]:4d}  {layer[2]:4d}"
                  + "".join(f"{ms['plain', what]:14.1f} / {ms['fast', what]:<8.1f}"
                            for what in ("forward", "both")), flush=True)


if __name__ == "__main__":
    app.run(main)
