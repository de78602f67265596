"""The two forms of the up-sampling convolution, layer by layer: sets blocks.FUSED_FROM.

    python -m benchmarks.upsampling

Prints milliseconds, forward and forward with both gradients, of the enlarged map with a 3x3
convolution ("plain") and of one transposed 4x4 convolution ("fused"), measured in turn; the median
of the rounds counts. Layers are those of the paper's Stage-I and Stage-II.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: E402
from absl import app, flags  # noqa: E402

from stackgan_tf import blocks  # noqa: E402

flags.DEFINE_integer("batch_size", 4, "pictures", lower_bound=1)
flags.DEFINE_integer("rounds", 7, "measurements of each form", lower_bound=1)

# (side of the input, channels in, channels out)
LAYERS = ((4, 1024, 512), (8, 512, 256), (16, 256, 128), (16, 512, 256), (32, 128, 64),
          (32, 256, 128), (64, 128, 64), (128, 64, 32))


def forms(side, inner, outer, batch_size, dtype):
    """{(form, "forward" or "both"): function to time}."""
    layer = blocks.UpsampleConv(outer)
    layer.build((None, side, side, inner))
    x = tf.cast(tf.random.normal([batch_size, side, side, inner]), dtype)
    kernel = tf.cast(layer.kernel.value, dtype)
    made = {}
    for name, form in (("plain", layer.plain), ("fused", layer.fused)):
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
    print("type      side   in   out   forward plain/fused   with gradients plain/fused  (ms)")
    for dtype in (tf.float32, tf.bfloat16):
        for layer in LAYERS:
            made = forms(*layer, values.batch_size, dtype)
            taken = {key: [] for key in made}
            for number in range(values.rounds + 1):
                for key, call in made.items():
                    begin = time.perf_counter()
                    call()
                    if number:  # the first call traces
                        taken[key].append(1e3 * (time.perf_counter() - begin))
            ms = {key: statistics.median(times) for key, times in taken.items()}
            print(f"{dtype.name:8s}  {layer[0]:4d}  {layer[1]:4d}  {layer[2]:4d}"
                  + "".join(f"{ms['plain', what]:14.1f} / {ms['fused', what]:<8.1f}"
                            for what in ("forward", "both")), flush=True)


if __name__ == "__main__":
    app.run(main)
