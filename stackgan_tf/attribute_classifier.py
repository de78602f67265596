"""Reads the five attributes of a drawn flower off a 64x64 picture: the judge of evaluate.py.

Trained on drawings, of test classes too: a judge that had never seen an orange rounded flower
would blame the generator for its own mistakes. Blurred and grainy besides, since it has to read
generated pictures.
"""

import concurrent.futures
import math
import os

import keras
import numpy as np
import tensorflow as tf

from stackgan_tf import blocks, flower_drawing
from stackgan_tf.images import resize_square

ATTRIBUTES = tuple(flower_drawing.ATTRIBUTES)
VERSION = 1  # raise it when the network or its training changes: kept classifiers are then redone
IMAGE_SIZE = 64
BATCH_SIZE = 64
_SEED = 1  # the data set's drawings have seed 0


class AttributeClassifier(keras.Model):
    """Call arguments:
        images: float (B, 64, 64, 3) in [-1, 1].

    Returns:
        {attribute: logits float (B, number of its values)}.
    """

    def __init__(self, width=32):
        super().__init__(name="attribute_classifier")
        # (kernel, stride, width): 64 -> 4; petals are counted by what lies at 16x16 and 8x8
        shape = [(4, 2, 1), (3, 2, 2), (3, 1, 2), (3, 2, 3), (3, 1, 4), (3, 2, 6)]
        self.trunk = [blocks.ConvNorm(width * factor, kernel, stride, name=f"conv_{i}")
                      for i, (kernel, stride, factor) in enumerate(shape)]
        self.flatten = keras.layers.Flatten(name="flatten")
        self.dropout = keras.layers.Dropout(0.3, name="dropout")
        self.hidden = {name: keras.layers.Dense(4 * width, "relu", name=f"hidden_{name}")
                       for name in ATTRIBUTES}
        self.logits = {name: keras.layers.Dense(len(values), name=f"logits_{name}")
                       for name, values in flower_drawing.ATTRIBUTES.items()}

    def call(self, images, training=False):
        x = images  # (B, 64, 64, 3)
        for layer in self.trunk:
            x = layer(x, training=training)
        x = self.dropout(self.flatten(x), training=training)  # (B, 4 * 4 * 6 width)
        return {name: self.logits[name](self.hidden[name](x)) for name in ATTRIBUTES}


def augment(pictures, seed):
    """Random views of drawings, with what a generator may add to them: blur and noise.

    Args:
        pictures: float (B, S, S, 3) in [-1, 1], S at least 64.
        seed: int32 (2,).

    Returns:
        float (B, 64, 64, 3).
    """
    batch, seeds = tf.shape(pictures)[0], tf.random.experimental.stateless_split(seed, 5)
    x = _turn(pictures, seeds[0], seeds[1])
    blurred = tf.nn.avg_pool2d(tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC"),
                               3, 1, "VALID")
    amount = tf.random.stateless_uniform([batch, 1, 1, 1], seeds[2], -0.5, 1.0)
    x += tf.maximum(amount, 0.0) * (blurred - x)
    scale = tf.random.stateless_uniform([batch, 1, 1, 1], seeds[3], 0.0, 0.1)
    x += scale * tf.random.stateless_normal(tf.shape(x), seeds[4])
    return tf.clip_by_value(x, -1.0, 1.0)


def _turn(pictures, angle_seed, shift_seed):
    """A random 64x64 crop, turned by quarters and mirrored every other time.

    Turning by any angle instead made the network count no petals at all in as many steps.
    """
    batch, size = tf.shape(pictures)[0], pictures.shape[1]
    turn, mirror = tf.unstack(tf.random.stateless_uniform([2, batch], angle_seed, -1.0, 1.0))
    angle = math.pi / 2.0 * tf.floor(4.0 * turn)
    room = (size - IMAGE_SIZE) // 2
    shift = tf.round(tf.random.stateless_uniform([2, batch], shift_seed, -room, room + 1e-3))
    cos, sin, flip = tf.cos(angle), tf.sin(angle), tf.sign(mirror)
    old, new = (size - 1) / 2 + shift, (IMAGE_SIZE - 1) / 2
    # output (x, y) reads input old + R diag(flip, 1) ((x, y) - new)
    matrix = [flip * cos, -sin, old[0] - new * (flip * cos - sin),
              flip * sin, cos, old[1] - new * (flip * sin + cos)]
    zeros = tf.zeros([batch])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures, transforms=tf.stack([*matrix, zeros, zeros], 1),
        output_shape=[IMAGE_SIZE, IMAGE_SIZE], fill_value=0.0, interpolation="BILINEAR",
        fill_mode="REFLECT")


def draw(class_names, images_per_class, size):
    """New drawings of some classes, none of which is in the data set.

    Returns:
        uint8 (N, size, size, 3), and value indices int (N, 5) in the order of ATTRIBUTES.
    """
    classes = len(flower_drawing.CLASS_NAMES)
    labels = [flower_drawing.CLASS_NAMES.index(name) for name in class_names]
    indices = [turn * classes + label for turn in range(images_per_class) for label in labels]

    def one(index):
        flower = flower_drawing.make_flower(_SEED, index)
        return resize_square(flower.image, size), [flower.attributes[name] for name in ATTRIBUTES]

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        pictures, values = zip(*pool.map(one, indices))
    return np.stack(pictures), np.array(values)


def train(images, targets, steps, seed=0, show=None):
    """A classifier trained on drawings.

    Args:
        images: uint8 (N, S, S, 3), S at least 64.
        targets: int (N, 5), in the order of ATTRIBUTES.
        show: called with (step, {name: number}) from time to time.
    """
    keras.utils.set_random_seed(seed)
    model = AttributeClassifier()
    model(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32))
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, steps)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=1e-2)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step(pictures, truth, number):
        pictures = tf.cast(pictures, tf.float32) / 127.5 - 1.0
        pictures = augment(pictures, tf.stack([seed, number]))
        with tf.GradientTape() as tape:
            logits = model(pictures, training=True)
            loss = tf.add_n([tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(
                truth[:, i], logits[name])) for i, name in enumerate(ATTRIBUTES)])
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return loss

    generator = np.random.default_rng(seed)
    for number in range(1, steps + 1):
        rows = generator.integers(len(images), size=BATCH_SIZE)
        loss = step(images[rows], targets[rows], tf.constant(number))
        if show is not None and number % 50 == 0:
            show(number, {"loss": float(loss)})
    return model


def views(model, images):
    """The mean logits over a picture's eight turned and mirrored views: counts get surer."""
    x = [images, tf.transpose(images, [0, 2, 1, 3])]
    x += [tf.reverse(picture, [1]) for picture in x]
    x += [tf.reverse(picture, [2]) for picture in x]
    logits = model(tf.concat(x, 0), training=False)  # (8 B, ...)
    return {name: tf.reduce_mean(tf.reshape(value, [8, -1, value.shape[-1]]), 0)
            for name, value in logits.items()}
