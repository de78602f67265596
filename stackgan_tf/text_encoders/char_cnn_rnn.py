"""char-CNN-RNN: captions to embeddings, learned so that a caption finds its picture.

Reed, Akata, Schiele, Lee, "Learning Deep Representations of Fine-Grained Visual Descriptions",
CVPR 2016 (arXiv:1605.05395). StackGAN takes its captions' embeddings from this network.
"""

import keras
import tensorflow as tf

from stackgan_tf.characters import ALPHABET


class CharCnnRnn(keras.Model):
    """Convolutions over characters, then a recurrent layer averaged over its steps.

    Args:
        embedding_dim: size of the result; Reed et al.: 1024.
        width: channels; Reed et al.: 512.

    Call arguments:
        tokens: int (B, 201) of `tokenize`.

    Returns:
        float (B, embedding_dim).
    """

    def __init__(self, embedding_dim=1024, width=512, name="char_cnn_rnn"):
        super().__init__(name=name)
        self.conv_1, self.conv_2, self.conv_3 = (
            # Keras's small first weights: from larger ones (He et al. 2015) it learns sooner, but
            # (shape, color) pairs as a whole, and an unseen pair is then taken for a seen one.
            keras.layers.Conv1D(filters, 4, activation="relu", name=f"conv_{i}")
            for i, filters in enumerate((3 * width // 4, width, width), start=1))
        self.pool = keras.layers.MaxPool1D(3, name="pool")
        # Not cuDNN's GRU: a model exported on a GPU has to run on any server.
        self.rnn = keras.layers.GRU(width, return_sequences=True, unroll=True, use_cudnn=False,
                                    name="rnn")
        self.project = keras.layers.Dense(embedding_dim, name="project")

    def call(self, tokens):
        x = tf.one_hot(tokens - 1, len(ALPHABET))  # (B, 201, 70); token 0 is all zeros
        x = self.pool(self.conv_1(x))  # (B, 66, 3/4 width)
        x = self.pool(self.conv_2(x))  # (B, 21, width)
        x = self.conv_3(x)  # (B, 18, width)
        x = tf.reduce_mean(self.rnn(x), axis=1)
        return self.project(x)
