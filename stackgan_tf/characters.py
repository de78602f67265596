"""Captions as characters, the form in which the text encoders read them.

Reed et al. 2016 (arXiv:1605.05395) and their released code.
"""

import numpy as np
import tensorflow as tf

# 70 symbols, the released code's order. "-" is in it twice; there and here the second one counts.
ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/\\|_@#$%^&*~`+-=<>()[]{} "
CAPTION_LENGTH = 201  # characters that are read, as in the released code

_INDEX_OF_BYTE = np.zeros(256, np.int32)  # 0: unknown character or padding
for _position, _symbol in enumerate(ALPHABET):
    _INDEX_OF_BYTE[ord(_symbol)] = _position + 1


def tokenize(captions):
    """Indices into ALPHABET, counted from 1: string (B,) -> int32 (B, 201).

    Lower-cased, cut or padded to 201 bytes; 0 stands for padding and for any other byte, so a
    letter outside ASCII is as many unknowns as its UTF-8 has bytes.
    """
    data = tf.io.decode_raw(tf.strings.lower(captions), tf.uint8, fixed_length=CAPTION_LENGTH)
    return tf.gather(_INDEX_OF_BYTE, tf.cast(data, tf.int32))


def captions_of(tokens):
    """Captions, str, that have these tokens, int (B, 201): other bytes became line breaks."""
    return ["".join(ALPHABET[token - 1] if token else "\n" for token in row) for row in tokens]
