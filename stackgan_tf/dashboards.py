"""TensorBoard's pages that open on a whole run: Custom Scalars' charts, and HParams for comparing.

Both are written at every start of a training, inside Logs.writing(): TensorBoard shows one of the
same name, so a run that goes on has them once, and one that an older version began gets them too.
"""

import dataclasses

import tensorflow as tf
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalars
from tensorboard.plugins.hparams import api as hparams

from stackgan_tf.config import FREE, Config

# A GAN fails in four ways, and no one number shows two of them. Accuracy is not among them: it is
# the logits rounded to 0 and 1, in steps of 1/8 at Stage-II's batch of 8, and nothing at all with
# the Wasserstein loss.
CHARTS = {
    # The generator's loss is the adversarial one: its KL term has another scale.
    "One wins: losses": ("loss/discriminator$", "loss/adversarial$"),
    # Real must stay above wrong: that gap alone teaches the generator to follow the caption.
    "The caption is not read: mean logits": ("logits/real$", "logits/wrong$", "logits/fake$"),
    "It diverges: gradient norms": ("gradient/discriminator$", "gradient/generator$"),
    "It collapses: variety of the samples": ("samples/variety$",),
}


def layout() -> layout_pb2.Layout:
    """Custom Scalars' page. The same for every run: TensorBoard joins those that are equal."""
    charts = [layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
              for title, tags in CHARTS.items()]
    return layout_pb2.Layout(category=[layout_pb2.Category(title="Health", chart=charts)])


def write_layout() -> None:
    summary = custom_scalars.pb(layout()).SerializeToString()
    tf.summary.experimental.write_raw_pb(summary, step=0)


def write_hparams(config: Config) -> None:
    """A row of HParams; its metrics are the last values of the scalars beside it and below it.

    What a later start may change is left out: TensorBoard keeps what the first one wrote.
    """
    values = {name: v for name, v in dataclasses.asdict(config).items() if name not in FREE}
    hparams.hparams(values, trial_id=f"{config.run} stage{config.stage}")
