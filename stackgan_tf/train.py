"""Trains Stage-I or Stage-II of StackGAN, and before them the run's text encoder.

On a laptop, with the embedded data set (README: how long it takes on two CPU cores):

    python -m stackgan_tf.train --stage=1
    python -m stackgan_tf.train --stage=2

With your own pictures, and at the paper's sizes on a GPU:

    python -m stackgan_tf.train --stage=1 --run=mine --dataset=folder --data_dir=DIR
    python -m stackgan_tf.train --stage=1 --run=birds --preset=birds --data_dir=DIR

Everything lands in checkpoints/<run>/stage<N>/: checkpoints, the SavedModel, sample grids and
TensorBoard logs. The same command again goes on where the last one stopped, bit for bit.
"""

import functools
import gc
import math

import numpy as np
import tensorflow as tf

from stackgan_tf import (
    below,
    build,
    checkpoint,
    devices,
    distribution,
    joint_space,
    pipeline,
    saved_parts,
    settings,
    stream,
)
from stackgan_tf.config import (
    TEXT_FIELDS,
    Config,
    UserError,
    define_flags,
    given_flags,
    run_cli,
)
from stackgan_tf.progress import Progress, StopSignal
from stackgan_tf.reports import Reports
from stackgan_tf.run_folder import Part, refuse_unwritable
from stackgan_tf.train_step import make_train_step, make_train_steps

MOST_SKIPPED = 3  # steps, with --on_nan=rollback; more is no accident


def main(_):
    given = given_flags()
    cluster = distribution.start(given.get("distribute", Config.distribute),
                                 given.get("tpu", Config.tpu))
    with cluster.together():
        return train(given, cluster)


def train(given, cluster) -> int:
    """Trains the stage that the flags say, on the cluster's devices; returns the exit code."""
    config = settings.from_flags(given)
    devices.settle_determinism(config)
    part = Part(config.checkpoint_dir, config.run, f"stage{config.stage}")
    refuse_unwritable(part.path)
    config = settings.settle_precision(config, part)
    cluster.check(config)
    source = below.find_stage1(config, part)
    text = Part(config.checkpoint_dir, config.run, "text_encoder")
    reads_captions = config.embedding_dim and not config.precomputed_embeddings
    if reads_captions:
        text.check(config, (*TEXT_FIELDS, *(n for n in given if n.startswith("text_encoder_"))))
        below.check_own_text_encoder(config, part, text)
    if source:
        below.check_text_encoder(config, source, text)
    part.refuse_without_checkpoint()
    part.check(config)
    cluster.compare(config)  # and nothing is written before all have looked
    print(f"stage {config.stage} of run {config.run!r}: {part.path}", flush=True)
    # The chief draws, trains and writes what is not there yet.
    batches = cluster.chief_first(lambda: build.load_batches(
        config, cluster.worker, cluster.workers))
    cluster.expect_same(len(batches), "pictures")
    if cluster.is_chief:
        if below.needs_text_encoder(config, text) and not config.text_encoder:
            below.check_text_batch(config, len(batches))
        data = build.data_note(config, batches)
        if reads_captions and text.is_begun():
            text.check(config, TEXT_FIELDS, data)
            text.note_data(config, data)
        part.open(config, data=data)
        if not (code := below.prepare_text_encoder(config, text, data)) and source:
            below.keep_stage1(source, part)
    if code := cluster.of_chief(code if cluster.is_chief else 0):
        return code
    cluster.expect_shared(part.settings)
    with cluster.strategy.scope():
        frozen_stage1 = saved_parts.Stage1(
            below.kept_stage1(part), "put it back whole") if source else None
        space = joint_space.JointSpace(
            text.image_encoder, text.remedy()) if config.matching_weight else None
    return Trainer(config, part, text, batches, frozen_stage1, cluster, space).run()


class Trainer:
    """The training loop of one stage, with its reports and checkpoints.

    With several workers each has one, and the chief's alone writes.
    """

    def __init__(self, config, part, text, batches, frozen_stage1, cluster=None, space=None):
        self.config, self.part, self.text, self.batches = config, part, text, batches
        self.cluster = cluster or distribution.Cluster()
        encoder = self.fingerprint = None
        if config.embedding_dim:
            if not config.precomputed_embeddings:
                encoder = saved_parts.TextEncoder(text.saved_model, text.remedy())
                self.fingerprint = encoder.fingerprint()
            self._embed(encoder)
        steps_per_epoch = len(batches) / config.batch_size
        self.total = config.train_steps or math.ceil(config.epochs * steps_per_epoch)
        with self.cluster.strategy.scope():
            self._make_networks(frozen_stage1, steps_per_epoch, space)
        self.steps_per_call = self.cluster.steps_per_call(devices.steps_per_call(config))
        if self.cluster.is_chief:
            # What samples and exports has each weight once; if training has it often, a copy.
            self.drawing = self.gan
            if not self.cluster.is_plain:
                self.drawing = build.generator_alone(
                    config, frozen_stage1 and saved_parts.Stage1(frozen_stage1.path))
            self.stage_export = checkpoint.StageExport(config, self.drawing)
            self.reports = Reports(config, part, self.drawing, encoder)

    def _make_networks(self, frozen_stage1, steps_per_epoch, space=None):
        """Networks, optimizers, the step, and the checkpoints of all of them."""
        config = self.config
        self.gan, self.ema_generator = build.gan(config, frozen_stage1, space)
        self.generator_adam = build.optimizer(config, build.learning_rate(
            config, config.learning_rate, steps_per_epoch), self.gan.generator)
        discriminator_adam = build.optimizer(config, build.learning_rate(
            config, config.discriminator_learning_rate or config.learning_rate, steps_per_epoch),
            self.gan.discriminator)
        # What is sampled and exported: the moving average, kept apart from the live weights.
        self.sampler = self.ema_generator if config.ema_decay else self.gan.generator
        self.first_bad = tf.Variable([0, 0], dtype=tf.int64, trainable=False)
        self.train_step = make_train_step(
            self.gan, self.generator_adam, discriminator_adam,
            self.ema_generator if config.ema_decay else None, config.ema_decay, config.seed,
            self.cluster.jit_compile(devices.jit_compile(config)), self.first_bad)
        self.train_steps = make_train_steps(self.train_step)
        self.checkpoints = checkpoint.Checkpoints(self.part.checkpoints, {
            "generator": self.gan.generator.variables,
            "discriminator": self.gan.discriminator.variables,
            "ema_generator": self.ema_generator.variables,
            "generator_optimizer": self.generator_adam.variables,
            "discriminator_optimizer": discriminator_adam.variables,
        }, config.keep_checkpoints)

    def _embed(self, encoder):
        if isinstance(self.batches, stream.Stream):  # embeds each batch as it comes
            self.batches.encoder = encoder
            return
        examples = self.batches.examples
        if encoder is None:
            self.batches.set_embeddings(examples.embeddings, examples.offsets)
            return
        print(f"embedding {sum(map(len, examples.captions)):,} captions", flush=True)
        self.batches.set_embeddings(*pipeline.embed(examples.captions, encoder))
        spread = float(self.batches.embeddings.std())
        if not 0.3 < spread < 3.0:
            print(f"warning: the text encoder's numbers have a standard deviation of {spread:.2g}; "
                  "the networks learn captions best near 1. Scale its output.", flush=True)

    @functools.cached_property
    def text_mean(self) -> np.ndarray | None:
        """The mean embedding of the training captions, float (dim,); None without text."""
        if not self.config.embedding_dim:
            return None
        if isinstance(self.batches, stream.Stream):
            return self.batches.text_mean()
        return self.batches.embeddings.mean(0, dtype=np.float64)

    def run(self) -> int:
        """Trains to the end; returns an exit code: 0, or 128 + the signal that stopped it."""
        config, start, chief = self.config, self.restore(), self.cluster.is_chief
        if start >= self.total:
            print(f"already trained for {start} steps; for more, raise --train_steps or --epochs.")
            saved = self.part.saved_model
            if chief and (checkpoint.exported_step(saved) != start  # was killed in between
                          or not saved_parts.is_whole(saved)
                          # or an older version kept no mean
                          or config.embedding_dim and checkpoint.text_mean(saved) is None):
                self.export(start)
            return 0
        if start:
            print(f"going on from the checkpoint of step {start}", flush=True)
        self.skipped = list(self.checkpoints.notes.get("skipped", ()))
        if chief:
            self._note_pictures(start)
            self.reports.begin(start, self.checkpoints.notes.get("variety", 0.0))
            if config.on_nan == "rollback" and not self.checkpoints.steps():
                self.save(0)  # to go back to
            progress = Progress(f"stage {config.stage}", start, self.total, config.log_steps,
                                config.batch_size)
        with StopSignal() as stop:
            step, batches, names, stopped = start, self._batches(start), [], 0
            while step < self.total and not stopped:
                step, parts = self._steps(batches, step)
                names = sorted(parts) if parts else names
                stopped = self.cluster.largest(stop.number)
                due = step % config.checkpoint_steps == 0 or step == self.total or stopped
                log = step % config.log_steps == 0
                if (due or log) and self.first_bad.numpy()[0]:
                    step, stopped = self.stop_or_roll_back(names), 0
                    batches = self._batches(step)
                    continue
                if not chief:
                    continue
                if due:  # before anything is shown: who reads it may have gone
                    self.save(step)
                values = None
                if parts and (due or log):
                    # the optimizer's own rate: steps that float16 leaves out do not count for it
                    values = self.reports.write_numbers(
                        step, parts, self.generator_adam.learning_rate,
                        progress.images_per_second(step))
                progress.update(step, values if log else None)
                if due:
                    self.reports.write_pictures(step, self._still(), step == self.total,
                                                bool(stopped))
                    self.export(step)
        if chief:
            progress.close()
        if stopped and step < self.total:
            print(f"stopped by signal {stopped} after step {step}, which is saved; the same "
                  "command goes on from there.", flush=True)
            return 128 + stopped
        print(f"done: {self.part.saved_model} (and grids in {self.part.samples})", flush=True)
        return 0

    def _note_pictures(self, start):
        """What this run learns from, and what it stands on has learnt from."""
        lists = [build.picture_keys(self.batches)]
        if start or self.config.stage == 2:  # there since Stage-I was kept
            lists.append(self.part.read_trained_on())
        if self.config.embedding_dim and not self.config.precomputed_embeddings:
            lists.append(self.text.read_trained_on())
        self.part.write_trained_on(*lists)

    def restore(self) -> int:
        """Loads the newest checkpoint, as the chief sees it; returns its step, 0 if there is
        none."""
        step = -1
        if self.cluster.is_chief and self.checkpoints.steps():
            step = self.checkpoints.restore()
        step = self.cluster.of_chief(step)
        if step >= 0 and not self.cluster.is_chief:  # 0 is what a rollback may go back to
            self.checkpoints.read(step)
        return max(step, 0)

    def save(self, step):
        self.checkpoints.save(step, {"skipped": self.skipped,
                                     "variety": self.reports.watchdog.variety})

    def _batches(self, start):
        batches, plain = self.batches.dataset(start, self.total), self.cluster.is_plain
        if isinstance(self.batches, stream.Stream) and (self.steps_per_call > 1 or not plain):
            batches = stream.as_dataset(batches)
        return iter(batches) if plain else self.cluster.spread(batches)

    def _steps(self, batches, done):
        """Steps up to the next report or to one that is skipped; returns how many are done now,
        and the last one's parts, None for one that is skipped."""
        # NumPy's: TensorFlow keeps a tensor of each Python number that it has seen, for ever
        config, step = self.config, tf.constant(np.int64(done))
        ends = [every - done % every for every in (config.log_steps, config.checkpoint_steps)]
        ends += [skipped - 1 - done for skipped in self.skipped if skipped > done]
        most = self.steps_per_call
        if done + 1 in self.skipped:
            next(batches)
            return done + 1, None
        count = min(most, self.total - done, *ends)
        try:
            if most == 1:
                return done + 1, self.train_step(next(batches), step)
            return done + count, self.train_steps(batches, step, tf.constant(count, tf.int64))
        except tf.errors.InvalidArgumentError as error:
            if getattr(self.batches, "error", None):  # what the stream raised in the loop
                raise self.batches.error from error
            raise
        except tf.errors.ResourceExhaustedError as error:
            raise UserError(f"out of memory at --batch_size={self.config.batch_size}; try "
                            f"--batch_size={max(2, self.config.batch_size // 2)} or a smaller "
                            "--generator_width and --discriminator_width.") from error

    def stop_or_roll_back(self, names) -> int:
        """UserError for the first step that was not finite; or, with --on_nan=rollback, restores
        the last checkpoint and returns its step. That step will be skipped: with its batch and
        noise the weights would come to the same."""
        bad, bits = self.first_bad.numpy().tolist()
        said = ", ".join(name for i, name in enumerate(names) if bits >> i & 1)
        said = f"{said} not finite at step {bad}"
        if self.config.on_nan == "stop":
            raise UserError(f"{said}; {self.checkpoints.last()}. --on_nan=rollback goes on from "
                            "there without that batch; a lower --learning_rate may help, in a new "
                            "--run.")
        if len(self.skipped) >= MOST_SKIPPED:
            raise UserError(f"{said}, after steps {', '.join(map(str, self.skipped))} were skipped "
                            f"for the same; {self.checkpoints.last()}. A lower --learning_rate may "
                            "help, in a new --run.")
        step = self.restore()
        self.skipped.append(bad)
        self.first_bad.assign([0, 0])
        print(f"warning: {said}; going on from the checkpoint of step {step} without that batch "
              f"({len(self.skipped)} of {MOST_SKIPPED} times)", flush=True)
        return step

    def _still(self):
        """The generator to sample and to export."""
        if self.drawing is self.gan:
            return self.sampler
        for variable, value in zip(self.drawing.generator.variables, self.sampler.variables,
                                   strict=True):
            variable.assign(value)
        return self.drawing.generator

    def export(self, step):
        self.stage_export.write(self.part.saved_model, self._still(), step, self.fingerprint,
                                self.text_mean)
        gc.collect()  # its graphs hold one another, and Python comes to them 20 MB later


if __name__ == "__main__":
    define_flags()
    run_cli(main)
