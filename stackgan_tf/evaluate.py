"""Scores a trained run: do the pictures look real, and do they show what held-out captions say?

    python -m stackgan_tf.evaluate                          # attribute accuracy (drawn_flowers)
    python -m stackgan_tf.evaluate --run=mine --stage=1 --count=500
    python -m stackgan_tf.evaluate --metrics=kid,precision_recall,diversity,r_precision
    python -m stackgan_tf.evaluate --metrics=fid,inception_score --count=30000 --inception=FILE

Without --metrics, a run on drawn_flowers is scored by attribute accuracy: a classifier reads petal
color, shape and count, center and background off the pictures. The first time it is trained on
drawn flowers, which takes three minutes on two CPU cores, and kept in
checkpoints/attribute_classifier. Other runs are scored by what suits them and
has enough pictures and captions; what is left out is said.

    fid                 --inception=FILE: pt_inception-2015-12-05-6726825d.pth, or
                        classify_image_graph_def.pb, or a copy of their weights as .npz
    frechet_distance, kid, inception_score, precision_recall (with density, coverage), diversity
                        the same, or the small ImageNet network, whose name is then in each number
    r_precision         a text encoder trained here
    attribute_accuracy  drawn_flowers

Prints a table, and adds a line a metric to checkpoints/<run>/stage<N>/metrics.jsonl, to TensorBoard
and to metrics.png beside it. What was read off the pictures is kept: the same command goes on where
it was stopped or killed. A thousand pictures take a minute or two.
"""

from absl import flags

from stackgan_tf import evaluation
from stackgan_tf.config import PLACES, Config, define_flags, given_flags, run_cli
from stackgan_tf.features import RESIZES


def main(_):
    values, given = flags.FLAGS, given_flags()
    names = ("metrics", "count", "seed", "split", "size", "inception", "inception_sha256", "resize",
             *PLACES)
    evaluation.evaluate(given.get("checkpoint_dir", Config.checkpoint_dir),
                        given.get("run", Config.run), values.stage,
                        **{name: values[name].value for name in names})


def define_own_flags() -> None:
    define_flags(only=("run", "checkpoint_dir"))
    flags.DEFINE_list("metrics", [], f"what to measure, of fid, {', '.join(evaluation.METRICS)}; "
                      "'': what suits the run")
    flags.DEFINE_integer("stage", None, "1 or 2; the highest that is trained if not given",
                         lower_bound=1, upper_bound=2)
    flags.DEFINE_integer("count", 1000, "pictures to generate", lower_bound=1, upper_bound=10**7)
    flags.DEFINE_integer("seed", 0, "chooses the captions and the noise", lower_bound=0,
                         upper_bound=2**31 - 1)
    flags.DEFINE_enum("split", "", ["", "train", "test"], "the captions and the real pictures; '': "
                      "test, if there is one")
    flags.DEFINE_integer("size", 0, "side at which pictures are compared, generated ones being "
                         "enlarged to it; 0: that of the stage", lower_bound=0, upper_bound=1024)
    flags.DEFINE_string("inception", "", "file of the weights of the FID's Inception: .pth, .pb or "
                        ".npz; '': the small ImageNet network")
    flags.DEFINE_string("inception_sha256", "", "SHA-256 of --inception, where it is neither of "
                        "the two published files but holds their weights")
    flags.DEFINE_enum("resize", "", ["", *RESIZES], "how pictures come to a network's size; '': "
                      "pytorch for Inception, clean for the small network")
    for name, what in zip(PLACES, ("data", "data's pictures", "data's captions")):
        flags.DEFINE_string(name, "", f"where the {what} are now, if they were moved")


if __name__ == "__main__":
    define_own_flags()
    run_cli(main)
