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

import dataclasses
import math
import os

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from stackgan_tf import below, build, checkpoint, devices, images, latents, pipeline, stream
from stackgan_tf.config import (
    TEXT_FIELDS,
    Config,
    UserError,
    define_flags,
    given_flags,
    resolve,
    run_cli,
)
from stackgan_tf.logs import Logs
from stackgan_tf.progress import Progress, StopSignal
from stackgan_tf.run_folder import Part, refuse_unwritable
from stackgan_tf.train_step import make_train_step, make_train_steps
from stackgan_tf.watchdog import Watchdog

MOST_SKIPPED = 3  # steps, with --on_nan=rollback; more is no accident


def main(_):
    config = settings()
    devices.settle_determinism(config)
    part = Part(config.checkpoint_dir, config.run, f"stage{config.stage}")
    refuse_unwritable(part.path)
    config = settle_precision(config, part)
    source = below.find_stage1(config, part)
    text = Part(config.checkpoint_dir, config.run, "text_encoder")
    if config.embedding_dim and not config.precomputed_embeddings:
        text.check(config, TEXT_FIELDS)
    if source:
        below.check_text_encoder(config, source, text)
    part.refuse_without_checkpoint()
    part.check(config)
    print(f"stage {config.stage} of run {config.run!r}: {part.path}", flush=True)
    batches = build.load_batches(config)
    part.open(config)
    if code := below.prepare_text_encoder(config, text):
        return code
    frozen_stage1 = build.Stage1(below.keep_stage1(source, part)) if config.stage == 2 else None
    return Trainer(config, part, text, batches, frozen_stage1).run()


def settings() -> Config:
    """The Config of this start: flags, the run's Stage-I, preset; the embeddings' own size.

    `precomputed_embeddings` in it says whether there are any: the run's config.json tells
    `sample` so.
    """
    given = given_flags()
    shared = None
    if given.get("stage") == 2:
        shared = Part(given.get("checkpoint_dir", Config.checkpoint_dir),
                      given.get("run", Config.run), "stage1").read_config()
    config = resolve(given, shared)
    dim = build.embedding_dim(config) if config.embedding_dim else 0
    config = dataclasses.replace(config, precomputed_embeddings=bool(dim))
    if dim:
        if config.text_encoder:
            raise UserError(f"--text_encoder={config.text_encoder} has no use with the embeddings "
                            f"of --dataset={config.dataset}; add --noprecomputed_embeddings, or "
                            "leave it out.")
        if given.get("embedding_dim", dim) != dim:
            raise UserError(f"--embedding_dim={config.embedding_dim} does not fit the embeddings "
                            f"of --dataset={config.dataset}, which have {dim} numbers; leave it "
                            "out.")
        config = dataclasses.replace(config, embedding_dim=dim)
    if config.text_encoder:
        text = Part(config.checkpoint_dir, config.run, "text_encoder")
        kept = (text.read_config() or {}).get("text_encoder") == config.text_encoder
        path = text.saved_model if kept and text.is_exported() else config.text_encoder
        dim = build.TextEncoder(path).dim
        if given.get("embedding_dim", dim) != dim:
            raise UserError(f"--embedding_dim={config.embedding_dim} does not fit the text encoder "
                            f"{config.text_encoder}, which gives {dim}; leave it out.")
        config = dataclasses.replace(config, embedding_dim=dim)
    return config


def settle_precision(config: Config, part: Part) -> Config:
    """--precision=auto becomes the type that the part was begun in, or else this machine's.

    So a run that moves to another machine goes on exactly as it began.
    """
    if config.precision != "auto":
        return config
    here = devices.precision(config)
    begun = part.is_begun() and (part.read_config() or {}).get("precision") or here
    if begun not in (here, "auto"):  # older versions kept "auto"
        print(f"--precision=auto: going on in {begun}, in which this run was begun; a new run "
              f"would take {here} on this machine", flush=True)
    return dataclasses.replace(config, precision=begun)


class Trainer:
    """The training loop of one stage, with its reports and checkpoints."""

    def __init__(self, config, part, text, batches, frozen_stage1):
        self.config, self.part, self.batches = config, part, batches
        self.stage1 = frozen_stage1
        encoder = self.fingerprint = None
        if config.embedding_dim:
            if not config.precomputed_embeddings:
                encoder = build.TextEncoder(text.saved_model)
                self.fingerprint = encoder.fingerprint()
            self._embed(encoder)
        steps_per_epoch = len(batches) / config.batch_size
        self.total = config.train_steps or math.ceil(config.epochs * steps_per_epoch)
        self.gan, self.ema_generator = build.gan(config, frozen_stage1)
        self.generator_adam = build.optimizer(config, build.learning_rate(
            config, config.learning_rate, steps_per_epoch), self.gan.generator)
        discriminator_adam = build.optimizer(config, build.learning_rate(
            config, config.discriminator_learning_rate or config.learning_rate, steps_per_epoch),
            self.gan.discriminator)
        # What is sampled and exported: the moving average, kept apart from the live weights.
        self.sampler = self.ema_generator if config.ema_decay else self.gan.generator
        self.first_bad = tf.Variable([0, 0], dtype=tf.int64, trainable=False)
        self.stage_export = checkpoint.StageExport(config, self.gan)
        self.train_step = make_train_step(
            self.gan, self.generator_adam, discriminator_adam,
            self.ema_generator if config.ema_decay else None, config.ema_decay, config.seed,
            devices.jit_compile(config), self.first_bad)
        self.train_steps = make_train_steps(self.train_step)
        self.checkpoints = checkpoint.Checkpoints(part.checkpoints, {
            "generator": self.gan.generator.variables,
            "discriminator": self.gan.discriminator.variables,
            "ema_generator": self.ema_generator.variables,
            "generator_optimizer": self.generator_adam.variables,
            "discriminator_optimizer": discriminator_adam.variables,
        }, config.keep_checkpoints)
        self.logs = Logs(part.logs)
        self._prepare_samples(encoder)

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

    def _prepare_samples(self, encoder):
        """Captions and noise of the sample grids, the same at every checkpoint."""
        rows, self.columns = (8, 4) if self.config.image_size <= 64 else (5, 4)
        self.captions, embeddings = [""] * rows, None
        if encoder:
            self.captions = build.fixed_captions(self.config, rows)
            embeddings = encoder(self.captions)
        elif self.config.embedding_dim:
            self.captions, embeddings = build.fixed_embeddings(self.config, rows)
        self.grid_embeddings = embeddings
        if embeddings is not None:
            self.grid_embeddings = tf.repeat(embeddings, self.columns, axis=0)
        self.grid_latents = latents.draw(self.gan.latent_dims, [self.config.seed, 2**31 - 1],
                                         rows * self.columns)

    def run(self) -> int:
        """Trains to the end; returns an exit code: 0, or 128 + the signal that stopped it."""
        config, start = self.config, self.checkpoints.restore()
        if start >= self.total:
            print(f"already trained for {start} steps; for more, raise --train_steps or --epochs.")
            if checkpoint.exported_step(self.part.saved_model) != start:  # was killed in between
                self.export(start)
            return 0
        if start:
            print(f"going on from the checkpoint of step {start}", flush=True)
        self.skipped = list(self.checkpoints.notes.get("skipped", ()))
        self.watchdog = Watchdog(self.checkpoints.notes.get("variety", 0.0))
        if config.on_nan == "rollback" and not self.checkpoints.steps():
            self.save(0)  # to go back to
        progress = Progress(f"stage {config.stage}", start, self.total, config.log_steps,
                            config.batch_size)
        if not start:
            with self.logs.writing():
                hparams.hparams({k: v for k, v in dataclasses.asdict(config).items()})
        with StopSignal() as stop:
            step, batches, names = start, self._batches(start), []
            while step < self.total:
                step, parts = self._steps(batches, step)
                names = sorted(parts) if parts else names
                due = step % config.checkpoint_steps == 0 or step == self.total or stop.number
                log = step % config.log_steps == 0
                if (due or log) and self.first_bad.numpy()[0]:
                    step = self.stop_or_roll_back(names)
                    batches = self._batches(step)
                    continue
                values = self.report(step, parts, progress) if parts and (due or log) else None
                progress.update(step, values if log else None)
                if due:
                    self.save(step)
                    self.write_samples(step)
                    self.export(step)
                if stop.number and due:
                    break
        progress.close()
        if stop.number and step < self.total:
            print(f"stopped by signal {stop.number} after step {step}, which is saved; the same "
                  "command goes on from there.", flush=True)
            return 128 + stop.number
        print(f"done: {self.part.saved_model} (and grids in {self.part.samples})", flush=True)
        return 0

    def save(self, step):
        self.checkpoints.save(step, {"skipped": self.skipped, "variety": self.watchdog.variety})

    def _batches(self, start):
        batches = iter(self.batches.dataset(start, self.total))
        if devices.steps_per_call(self.config) > 1 and isinstance(self.batches, stream.Stream):
            batches = iter(stream.as_dataset(batches))
        return batches

    def _steps(self, batches, done):
        """Steps up to the next report or to one that is skipped; returns how many are done now,
        and the last one's parts, None for one that is skipped."""
        # NumPy's: TensorFlow keeps a tensor of each Python number that it has seen, for ever
        config, step = self.config, tf.constant(np.int64(done))
        ends = [every - done % every for every in (config.log_steps, config.checkpoint_steps)]
        ends += [skipped - 1 - done for skipped in self.skipped if skipped > done]
        most = devices.steps_per_call(config)
        skip = done + 1 in self.skipped
        if most == 1 or skip:
            batch = next(batches)
        if skip:
            return done + 1, None
        count = min(most, self.total - done, *ends)
        try:
            if most == 1:
                return done + 1, self.train_step(batch, step)
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
        step = self.checkpoints.restore()
        self.skipped.append(bad)
        self.first_bad.assign([0, 0])
        print(f"warning: {said}; going on from the checkpoint of step {step} without that batch "
              f"({len(self.skipped)} of {MOST_SKIPPED} times)", flush=True)
        return step

    def report(self, step, parts, progress) -> dict:
        """Writes a step's numbers to TensorBoard."""
        values = {name: float(value) for name, value in parts.items()}
        line = None
        if self.config.loss in ("non_saturating", "hinge"):  # of the others 0 divides nothing
            line = self.watchdog.accuracy(values["accuracy/real"], values["accuracy/fake"])
        self.warn(line, step)  # first: a full disk would swallow it below
        with self.logs.writing():
            for name, value in values.items():
                tf.summary.scalar(name, value, step)
            # the optimizer's own: with float16 it leaves out steps, and they do not count for it
            tf.summary.scalar("learning_rate", self.generator_adam.learning_rate, step)
            tf.summary.scalar("images_per_second", progress.images_per_second(step), step)
        return {name: values[name] for name in ("loss/discriminator", "loss/generator")}

    def warn(self, line, step):
        if line:
            print(f"warning: step {step}: {line}", flush=True)
            with self.logs.writing():
                tf.summary.text("watchdog", line, step)

    def write_samples(self, step):
        """A grid of the fixed captions as PNG and in TensorBoard; Stage-I above Stage-II."""
        sizes = [self._sample(self.sampler)]
        variety, line = self.watchdog.samples(sizes[0])
        if self.stage1 is not None:
            sizes.insert(0, self._sample(None))
        rows, labels = [], []
        for i, caption in enumerate(self.captions):
            here = slice(i * self.columns, (i + 1) * self.columns)
            rows += [pictures[here] for pictures in sizes]
            labels += [caption] + [""] * (len(sizes) - 1)
        grid = images.labelled_grid(rows, labels)
        path = os.path.join(self.part.samples, f"step-{step:08d}.png")
        try:
            tf.io.gfile.makedirs(self.part.samples)
            with tf.io.gfile.GFile(path + ".tmp", "wb") as file:
                file.write(images.encode_png(grid))
            tf.io.gfile.rename(path + ".tmp", path, overwrite=True)
        except tf.errors.OpError as error:  # a picture less is no reason to lose the checkpoint
            print(f"warning: {path} could not be written: {error.message}", flush=True)
        with self.logs.writing():
            tf.summary.scalar("samples/variety", variety, step)
            tf.summary.image("samples", grid[None], step)
            if any(self.captions):
                text = "\n".join(f"{i + 1}. {caption}" for i, caption in enumerate(self.captions))
                tf.summary.text("samples/captions", text, step)
        self.warn(line, step)

    def _sample(self, generator):
        """uint8 pictures of the grid by `generator`, or by the Stage-I below when None."""
        made = []
        for first in range(0, len(self.captions) * self.columns, 8):
            inputs = {name: v[first:first + 8] for name, v in self.grid_latents.items()}
            embeddings = None
            if self.grid_embeddings is not None:
                embeddings = self.grid_embeddings[first:first + 8]
            if generator is None:
                made.append(self.stage1({**inputs, "embeddings": embeddings}))
            else:
                made.append(self.gan.generate(inputs, embeddings, generator=generator)["images"])
        try:
            return images.to_uint8(np.concatenate(made))
        except ValueError as error:  # not a number
            raise UserError(f"the generator's weights are no longer finite ({error}); the last "
                            "checkpoint is kept. Try a lower --learning_rate in a new --run."
                            ) from error

    def export(self, step):
        self.stage_export.write(self.part.saved_model, self.sampler, step, self.fingerprint)


if __name__ == "__main__":
    define_flags()
    run_cli(main)
