"""A trained run as a function: captions and seeds in, pictures out."""

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from stackgan_tf import checkpoint, images, latents
from stackgan_tf.config import Config, UserError
from stackgan_tf.knobs import Knobs
from stackgan_tf.parallel import in_order
from stackgan_tf.run_folder import Part, find_run, flags_of_place
from stackgan_tf.saved_parts import Stage, TextEncoder

# A picture's last bits depend on the batch's size, so that is always the same: the first of these
# in which they do not depend on the row as well. Kernels take rows in blocks, by sixes on CPUs with
# AVX2, and the last two of eight in another way.
BATCH_SIZES = (8, 4, 1)
REMEMBERED = 10_000  # embeddings of captions that may come again: 40 MB at 1,024 numbers


class Generator:
    """The exported generator of a run, with its text encoder.

    Args:
        checkpoint_dir, run: as in Config.
        stage: 1 or 2; None takes the highest that is exported.

    Attributes:
        stage: the one that was loaded.
        part: its folder.
        fingerprint: tells its weights, the text encoder's included, from any others.
        step: of training, at which it was exported; None if not known.
        text: whether it reads captions.
        embeds: whether it can embed them; a run on its data's own embeddings has no text encoder.
        saved: the stage's SavedPart.
        functions: {stage: its signature, latents and embeddings -> {"images"}}.
        latent_dims: {name: size} of the latents, in the order in which they are drawn.
        encoder: the TextEncoder, None without.
        text_mean: the mean embedding of the captions it was trained with, float32 (dim,); None if
            not known.
    """

    def __init__(self, checkpoint_dir: str, run: str, stage: int | None = None):
        find_run(checkpoint_dir, run)
        self.run = run
        parts = {number: Part(checkpoint_dir, run, f"stage{number}") for number in (1, 2)}
        exported = [number for number, part in parts.items() if part.is_exported()]
        wanted = stage or max(exported, default=1)
        if wanted not in exported:
            raise UserError(f"run {run!r} has no trained stage {wanted} "
                            f"({parts[wanted].saved_model} is missing); train it with: "
                            f"python -m stackgan_tf.train --stage={wanted}"
                            f"{flags_of_place(checkpoint_dir, run)}")
        self.stage, self.part = wanted, parts[wanted]
        self._text_part = Part(checkpoint_dir, run, "text_encoder")
        self.fingerprint = None
        while self.fingerprint != (now := self._fingerprint_on_disk()):  # a training may export
            self.fingerprint = now
            self._load()
        # the order decides which random numbers go where
        self.latent_dims = {name: int(self.saved.inputs[name].shape[1])
                      for name in ("noise", "epsilon") if name in self.saved.inputs}
        self._draw = tf.function(lambda seeds: latents.draw_each(self.latent_dims, seeds),
                                 input_signature=[tf.TensorSpec([None], tf.int64)])
        self._embedded = {}

    def _fingerprint_on_disk(self):
        return " ".join(filter(None, (self.part.fingerprint(), self._text_part.fingerprint())))

    def _load(self):
        self.step = checkpoint.exported_step(self.part.saved_model)
        self.saved = Stage(self.part.saved_model, f"stage {self.stage}", self.part.remedy())
        self.functions = {self.stage: self.saved.function}
        if self.stage == 2 and "stage1" in self.saved.loaded.signatures:
            self.functions[1] = self.saved.loaded.signatures["stage1"]
        self.text = "embeddings" in self.saved.inputs
        stored = self.part.read_config() or {}
        self.embeds = self.text and not stored.get("precomputed_embeddings")
        self.encoder = self._load_encoder() if self.embeds else None
        self.text_mean = checkpoint.text_mean(self.part.saved_model) if self.text else None

    def _load_encoder(self):
        encoder = TextEncoder(self._text_part.saved_model, self._text_part.remedy())
        if encoder.dim != self.embedding_dim:
            raise UserError(f"text encoder {encoder.path} gives {encoder.dim} numbers a caption, "
                            f"{self.saved.path} reads {self.embedding_dim}; put back the one it "
                            "was trained with.")
        theirs = checkpoint.encoder_fingerprint(self.saved.path)
        if theirs is not None and not encoder.has(theirs):
            raise UserError(f"text encoder {encoder.path} is not the one that {self.saved.path} "
                            "was trained with; put that one back.")
        return encoder

    def data_config(self, **places: str | None) -> Config:
        """The settings that find its data, which is where `places`, of config.PLACES, say, if
        anything; UserError if they are not known."""
        config = self.part.config("dataset")
        if config is None:
            raise UserError(f"run {self.run!r} has no config.json that names its data set, so the "
                            "pictures that it was trained on are not known.")
        return dataclasses.replace(config, **{name: place for name, place in places.items()
                                              if place})

    @property
    def embedding_dim(self) -> int:
        """Size of the embeddings that it reads; 0 without text."""
        return int(self.saved.inputs["embeddings"].shape[1]) if self.text else 0

    @property
    def stages(self) -> tuple[int, ...]:
        """The stages whose pictures this can make: (1,), or (1, 2) with Stage-II loaded."""
        return tuple(sorted(self.functions))

    @property
    def knobs(self) -> tuple[str, ...]:
        """Those of knobs.NAMES that have something to turn here."""
        return ("truncation", *["epsilon_scale"] * ("epsilon" in self.latent_dims),
                *["text_strength"] * (self.text_mean is not None))

    def check_knobs(self, names: Iterable[str]) -> None:
        """UserError if one of them has nothing to turn."""
        run = f"run {self.run!r}"
        for name in {*names} - {*self.knobs}:
            if name == "epsilon_scale":
                raise UserError(f"{run} draws without conditioning augmentation, so there is no "
                                "epsilon to multiply; leave epsilon_scale out.")
            if not self.text:
                raise UserError(f"{run} was trained without text; leave text_strength out.")
            remedy = ("the command that trained it, once more, adds that" if
                      self.part.has_checkpoints() else "leave it out")
            raise UserError(f"text_strength needs the mean embedding of the training captions, "
                            f"which {run} does not have; {remedy}.")

    def generate(self, captions: Sequence[str] | None, seeds: Sequence[int],
                 stage: int | None = None, **knobs: float) -> np.ndarray:
        """Pictures uint8 (N, H, W, 3); each is a function of its caption and seed alone.

        Args:
            captions: N strings, or their embeddings, float32 (N, dim); None for a run without
                text. Strings need `embeds`.
            seeds: N numbers of int64. Picture i of --seed=s has the number s + i.
            stage: 1 with Stage-II loaded gives the sketches under its pictures.
            knobs: fields of Knobs; UserError for one that has nothing to turn.
        """
        return np.concatenate(list(self.batches(captions, seeds, stage, **knobs)))

    def draw_stages(self, captions: Sequence[str] | None, seeds: Sequence[int], **knobs: float
                    ) -> dict[int, np.ndarray]:
        """{stage: pictures} of all `stages`, each as `generate` makes them."""
        return {stage: self.generate(captions, seeds, stage, **knobs) for stage in self.stages}

    def batches(self, captions, seeds, stage=None, **knobs: float) -> Iterator[np.ndarray]:
        """`generate`, up to `batch_size` pictures at a time; a few are made ahead."""
        self.check_knobs(Knobs(**knobs).turned())

        def prepare(first):
            rows = slice(first, first + self.batch_size)
            embeddings = self.embed(captions[rows], **knobs) if self.text else None
            return self.latents(seeds[rows], **knobs), embeddings

        inputs = in_order(prepare, range(0, len(seeds), self.batch_size))
        return in_order(self._to_uint8, (self._call(*one, stage) for one in inputs))

    def latents(self, seeds: Sequence[int], **knobs: float) -> dict[str, np.ndarray]:
        """{noise (N, noise_dim) and, where it is read, epsilon (N, condition_dim)} of N seeds."""
        drawn = {name: rows.numpy() for name, rows in
                 self._draw(tf.constant(seeds, tf.int64)).items()}
        return Knobs(**knobs).scale(drawn)

    def embed(self, captions: Sequence[str] | np.ndarray, **knobs: float) -> np.ndarray:
        """float32 (N, dim). One at a time: an encoder may pad to the longest of its batch."""
        embeddings = np.stack([self._embed(caption) for caption in captions])
        return Knobs(**knobs).strengthen(embeddings, self.text_mean)

    def decode(self, inputs: dict[str, np.ndarray], embeddings: np.ndarray | None,
               stage: int | None = None) -> np.ndarray:
        """Pictures uint8 (N, H, W, 3) of N latents and N embeddings, which may be mixed ones.

        Args:
            inputs: as `latents` gives them.
            embeddings: float32 (N, dim); None for a run without text.
        """
        made = []
        for first in range(0, len(inputs["noise"]), self.batch_size):
            rows = slice(first, first + self.batch_size)
            made.append(self._to_uint8(self._call(
                {name: values[rows] for name, values in inputs.items()},
                None if embeddings is None else embeddings[rows], stage)))
        return np.concatenate(made)

    @staticmethod
    def png(picture: np.ndarray) -> bytes:
        """The PNG of a picture, uint8 (H, W, 3): the bytes that an export answers with."""
        return encode_png(picture).numpy()

    @functools.cached_property
    def batch_size(self) -> int:
        """How many rows are drawn at a time, whatever is asked for."""
        rng = np.random.default_rng(0)
        row = {name: rng.standard_normal((1, spec.shape[1])).astype(np.float32)
               for name, spec in self.saved.inputs.items()}
        return next(size for size in BATCH_SIZES if size == 1 or all(
            _draws_rows_alike(function, row, size) for function in self.functions.values()))

    def _call(self, inputs, embeddings, stage) -> np.ndarray:
        """float32 (N, H, W, 3) of N rows, N <= batch_size."""
        function = self.functions[stage or self.stage]
        if embeddings is not None:
            inputs = {**inputs, "embeddings": embeddings}
        count = len(inputs["noise"])
        padding = np.arange(self.batch_size) % count  # a short batch repeats its rows
        return function(**{name: tf.constant(inputs[name][padding]) for name in
                           function.structured_input_signature[1]})["images"][:count].numpy()

    def _to_uint8(self, made):
        try:
            return images.to_uint8(made)
        except ValueError as error:  # not a number
            raise UserError(
                f"{self.saved.path} makes no finite picture ({str(error).rstrip('.')}); take an "
                "earlier checkpoint or, if it draws others, another caption or embedding: this one "
                "is unlike all of training.") from error

    def _embed(self, caption):
        if not isinstance(caption, str):
            return np.asarray(caption, np.float32)
        found = self._embedded.get(caption)
        if found is None:
            if len(self._embedded) >= REMEMBERED:
                self._embedded.clear()
            found = self._embedded[caption] = self.encoder([caption]).numpy()[0]
        return found


def _draws_rows_alike(function, row, size):
    """Whether each of `size` rows of the same input, {name: (1, dim)}, gives the same bits."""
    images = function(**{name: tf.constant(np.repeat(row[name], size, 0)) for name in
                         function.structured_input_signature[1]})["images"].numpy()
    return bool((images == images[:1]).all())


def encode_png(pictures) -> tf.Tensor:
    """uint8 (..., H, W, 3) -> string (...)."""
    # zlib's default search takes longer than the generator of drawn_flowers, for 20 % fewer bytes
    return tf.io.encode_png(pictures, compression=1)
