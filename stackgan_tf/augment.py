"""DiffAugment: the discriminator sees real and fake pictures through the same random changes.

Zhao et al. 2020 (arXiv:2006.10738). It cannot learn the few real pictures by heart then; and since
the changes are differentiable, the generator learns through them to draw pictures without them.
"""

import tensorflow as tf

NUMBERS = 7  # that a picture needs; each policy has its own, so that none changes another's


def augment(images, numbers, policies):
    """The pictures as the discriminator sees them, of the same shape and type.

    Affine in the pictures, with gradients of any order, also under XLA.

    Args:
        images: float (B, H, W, 3) in [-1, 1]. What comes out is 0, mid-gray, where the picture was
            shifted away or cut out; "color" may lead out of [-1, 1].
        numbers: float (B, 7), uniform in [0, 1): brightness, saturation, contrast; shift down and
            to the right; center of the hole, down and to the right.
        policies: "color", "translation" and "cutout", made in this order; those that are named.
    """
    if "color" in policies:
        images = recolor(images, numbers[:, :3])
    if "translation" in policies:
        reach = [size // 8 for size in images.shape[1:3]]
        down, right = (_whole(numbers[:, 3 + i], 2 * reach[i] + 1) - reach[i] for i in range(2))
        images = shift(images, down, right)
    if "cutout" in policies:
        images = cut_out(images, numbers[:, 5:])
    return images


def _whole(numbers, count):
    """float in [0, 1) -> int32 of 0 to count - 1, all alike often. (Of 24 bits, as they come, no
    product is rounded up to `count`.)"""
    return tf.cast(numbers * float(count), tf.int32)


def recolor(images, numbers):
    """Adds up to 0.5, then scales by 0 to 2 what a pixel differs from its gray, then by 0.5 to 1.5
    what it differs from the mean of the picture."""
    brightness, saturation, contrast = tf.unstack(
        tf.cast(numbers, images.dtype)[..., None, None, None], axis=1)
    images += brightness - 0.5
    gray = tf.reduce_mean(images, 3, keepdims=True)
    images = (images - gray) * (2.0 * saturation) + gray
    mean = tf.reduce_mean(images, [1, 2, 3], keepdims=True)
    return (images - mean) * (contrast + 0.5) + mean


@tf.custom_gradient
def shift(images, down, right):
    """Moves each picture by int32 (B,) pixels; what comes in from outside is 0."""
    moved = images
    for axis, by in ((1, down), (2, right)):
        size = images.shape[axis]
        places = tf.range(size)[None] - by[:, None]  # (B, size): where each row comes from
        inside = tf.cast((places >= 0) & (places < size), images.dtype)
        places = tf.clip_by_value(places, 0, size - 1)
        moved = tf.gather(moved, places, axis=axis, batch_dims=1)
        moved *= inside[:, :, None, None] if axis == 1 else inside[:, None, :, None]

    def gradient(upstream):  # the transpose of a shift is the shift back
        return shift(upstream, -down, -right), None, None

    return moved, gradient


def cut_out(images, numbers):
    """Makes a square of half the side 0, wherever its center falls on the picture or its edge."""
    inside = []
    for i, size in enumerate(images.shape[1:3]):
        hole = size // 2
        first = _whole(numbers[:, i], size + 1 - hole % 2) - hole // 2
        places = tf.range(size)[None] - first[:, None]
        inside.append((places >= 0) & (places < hole))  # (B, size)
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return images * tf.cast(~hole, images.dtype)[..., None]
