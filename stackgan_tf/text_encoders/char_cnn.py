"""char-CNN: a caption's embedding from what words are in it, wherever they stand.

The char-CNN of Reed et al. 2016 (arXiv:1605.05395, Sec. 4) in its smallest form, with the
max-over-time pooling of Kim 2014 (arXiv:1408.5882).
"""

import keras
import tensorflow as tf

from stackgan_tf.characters import ALPHABET


class CharCnn(keras.Model):
    """Windows of nine characters, each filter's largest answer over all of them.

    What a caption says is a sum over its words here, so a pair of words that training has never
    shown lies where both point to. A recurrent layer learns pairs as a whole: of drawn_flowers'
    held-out shapes a small network reads 0.87 off the embeddings of `CharCnnRnn`, 1.00 off these
    (docs/results.md).

    Args:
        embedding_dim: size of the result.
        width: channels; the windows have twice as many.

    Call arguments:
        tokens: int (B, 201) of `characters.tokenize`.

    Returns:
        float (B, embedding_dim).
    """

    def __init__(self, embedding_dim=1024, width=512, name="char_cnn"):
        super().__init__(name=name)
        self.conv_1, self.conv_2 = (
            keras.layers.Conv1D(filters, kernel, activation="relu", name=f"conv_{i}",
                                kernel_initializer="he_normal")
            for i, (filters, kernel) in enumerate(((width, 4), (2 * width, 3)), start=1))
        self.pool = keras.layers.MaxPool1D(2, name="pool")
        self.project = keras.layers.Dense(embedding_dim, name="project")

    def call(self, tokens):
        x = tf.one_hot(tokens - 1, len(ALPHABET))  # (B, 201, 70); token 0 is all zeros
        x = self.pool(self.conv_1(x))  # (B, 99, width), of 5 characters
        x = self.conv_2(x)  # (B, 97, 2 width), of 9
        return self.project(tf.reduce_max(x, axis=1))
