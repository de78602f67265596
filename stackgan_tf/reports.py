"""What a training shows of itself: its numbers, its warnings, and pictures of fixed captions."""

import functools
import itertools
import os

import numpy as np
import tensorflow as tf

from stackgan_tf import dashboards, images, latents, logs, projector, shown_texts
from stackgan_tf.config import Config, UserError
from stackgan_tf.disk import ERRORS, write_whole
from stackgan_tf.messages import reason
from stackgan_tf.run_folder import Part
from stackgan_tf.saved_parts import TextEncoder
from stackgan_tf.watchdog import Watchdog

PROJECTOR_STEPS = 500  # between two of its pictures at least


class Reports:
    """Writes them into a stage's folder and its TensorBoard log.

    Captions and noise of the pictures are the same at every checkpoint and every start.

    Args:
        config, part: of the stage.
        drawing: its StackGAN, which draws; its discriminator is not used.
        encoder: of the run; None where the data has embeddings of its own, or without text.

    Attributes:
        watchdog: of the start that `begin` began.
    """

    def __init__(self, config: Config, part: Part, drawing, encoder: TextEncoder | None):
        self.config, self.part, self.drawing = config, part, drawing
        self.logs = logs.Logs(part.logs)
        rows, self.columns = (8, 4) if config.image_size <= 64 else (5, 4)
        self.captions, self.grid_embeddings, self.projected = [""] * rows, None, None
        if config.embedding_dim:
            grid, self.projected = shown_texts.read(config, rows, encoder)
            self.captions = grid.captions
            self.grid_embeddings = tf.repeat(grid.embeddings, self.columns, axis=0)
        self.grid_latents = self._fixed_latents(rows * self.columns)

    def _fixed_latents(self, count):
        return latents.draw(self.drawing.latent_dims, [self.config.seed, 2**31 - 1], count)

    def begin(self, step: int, variety: float) -> None:
        """A start at a step, whose samples were of this variety at most; see Watchdog."""
        self.watchdog, self.projected_at = Watchdog(variety), step
        with self.logs.writing():
            dashboards.write_layout()
            dashboards.write_hparams(self.config)

    def write_numbers(self, step: int, parts: dict, learning_rate, images_per_second: float
                      ) -> dict[str, float]:
        """A step's numbers into TensorBoard; returns those to print."""
        values = {name: float(value) for name, value in parts.items()}
        line = None
        if self.config.loss in ("non_saturating", "hinge"):  # of the others 0 divides nothing
            line = self.watchdog.accuracy(values["accuracy/real"], values["accuracy/fake"])
        self._warn(line, step)  # first: a full disk would swallow it below
        with self.logs.writing():
            for name, value in values.items():
                logs.scalar(name, value, step)
            logs.scalar("learning_rate", learning_rate, step)
            logs.scalar("images_per_second", images_per_second, step)
        return {"loss D": values["loss/discriminator"], "G": values["loss/generator"]}

    def _warn(self, line, step):
        if line:
            print(f"warning: step {step}: {line}", flush=True)
            with self.logs.writing():
                tf.summary.text("watchdog", line, step)

    def write_pictures(self, step: int, generator, last: bool, hurried: bool) -> None:
        """The samples of a checkpoint; and now and then, or at the end, the Projector's.

        Args:
            generator: to draw with, the moving average for instance.
            last: whether the training ends here.
            hurried: whether it was told to stop, so that what can wait is left out.
        """
        self.write_samples(step, generator)
        if last or (step - self.projected_at >= PROJECTOR_STEPS and not hurried):
            self.write_projector(generator)
            self.projected_at = step

    def write_samples(self, step: int, generator) -> None:
        """A grid of the fixed captions as PNG and in TensorBoard; Stage-I above Stage-II."""
        sizes = [self._draw_grid(generator)]
        variety, line = self.watchdog.samples(sizes[0])
        if self.drawing.stage1 is not None:
            sizes.insert(0, self._sketches)
        rows, labels = [], []
        for i, caption in enumerate(self.captions):
            here = slice(i * self.columns, (i + 1) * self.columns)
            rows += [pictures[here] for pictures in sizes]
            labels += [caption] + [""] * (len(sizes) - 1)
        grid = images.labelled_grid(rows, labels)
        path = os.path.join(self.part.samples, f"step-{step:08d}.png")
        try:
            write_whole(path, images.encode_png(grid))
        except ERRORS as error:  # a picture less is no reason to lose the checkpoint
            print(f"warning: {path} could not be written: {reason(error)}", flush=True)
        with self.logs.writing():
            logs.scalar("samples/variety", variety, step)
            tf.summary.image("samples", grid[None], step)
            if any(self.captions):
                text = "\n".join(f"{i + 1}. {caption}" for i, caption in enumerate(self.captions))
                tf.summary.text("samples/captions", text, step)
        self._warn(line, step)

    @functools.cached_property
    def _sketches(self):
        """The grid as the frozen Stage-I draws it, which is the same at every checkpoint."""
        return self._draw_grid(None)

    def write_projector(self, generator) -> None:
        """The test captions with a picture of each, for TensorBoard's Projector."""
        if texts := self.projected:
            made = self._draw(generator, self._fixed_latents(len(texts.captions)),
                              texts.embeddings)
            projector.write(self.logs, texts.captions, texts.classes, texts.embeddings,
                            itertools.chain.from_iterable(made))

    def _draw_grid(self, generator):
        return np.concatenate(list(self._draw(generator, self.grid_latents, self.grid_embeddings)))

    def _draw(self, generator, fixed_latents, embeddings):
        """uint8 pictures, eight at a time, by `generator`, or by the Stage-I below when None."""
        for first in range(0, len(fixed_latents["noise"]), 8):
            rows = slice(first, first + 8)
            inputs = {name: value[rows] for name, value in fixed_latents.items()}
            given = None if embeddings is None else embeddings[rows]
            if generator is None:
                made = self.drawing.stage1({**inputs, "embeddings": given})
            else:
                made = self.drawing.generate(inputs, given, generator=generator)["images"]
            try:
                yield images.to_uint8(made)
            except ValueError as error:  # not a number
                raise UserError(f"the generator's weights are no longer finite ({error}); the last "
                                "checkpoint is kept. Try a lower --learning_rate in a new --run."
                                ) from error
