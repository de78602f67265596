"""Runs of tiny SavedModels, as `train` leaves them: written at once, no training."""

import keras
import numpy as np
import tensorflow as tf

from stackgan_tf import checkpoint

NOISE, EPSILON, DIM = 5, 3, 4
MEAN = (0.5, 0.25, 1.0, 0.0)  # of the embeddings of what `both` was trained with


class FakeStage(keras.Model):
    """noise, epsilon and embeddings through a dense layer and a convolution to a picture."""

    def __init__(self, size, seed):
        super().__init__()
        self.size = size
        init = keras.initializers.RandomNormal(stddev=0.7, seed=seed)
        self.dense = keras.layers.Dense(8 * 8 * 4, kernel_initializer=init)
        self.conv = keras.layers.Conv2D(3, 3, padding="same", kernel_initializer=init)

    def call(self, inputs):
        x = tf.concat([inputs[name] for name in sorted(inputs)], -1)
        x = tf.reshape(self.dense(x), [-1, 8, 8, 4])
        return tf.tanh(self.conv(tf.image.resize(x, [self.size, self.size])))


def write_stage(path, size, text=True, below=None, mean=None):
    dims = {"noise": NOISE, **({"epsilon": EPSILON, "embeddings": DIM} if text else {})}
    signature = {name: tf.TensorSpec([None, dim], tf.float32, name) for name, dim in dims.items()}
    model = FakeStage(size, seed=size)
    model({name: np.zeros((1, dim), np.float32) for name, dim in dims.items()})
    endpoints = {"serve": (lambda x: {"images": model(x)}, [signature])}
    if below is not None:
        endpoints["stage1"] = (lambda x: {"images": below(x)}, [signature])
    checkpoint.export(str(path / "saved_model"), [model] + [below] * (below is not None), endpoints,
                      text_mean=mean)
    return model


def write_text_encoder(path):
    """Letter frequencies of a, b, c and d."""
    def embed(captions):
        letters = tf.strings.unicode_decode(captions, "UTF-8")
        return {"embeddings": tf.stack([tf.reduce_sum(tf.cast(letters == ord(c), tf.float32), 1)
                                        for c in "abcd"], 1)}

    checkpoint.export(str(path / "saved_model"), [], {"serve": (embed, [
        tf.TensorSpec([None], tf.string, "captions")])})
