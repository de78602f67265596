"""StackGAN (arXiv:1612.03242) in TensorFlow 2 / Keras 3: captions to 256x256 pictures."""

__version__ = "0.1.0"
