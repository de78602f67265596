r"""Trains the network that turns captions into embeddings, on the captions of your data.

    python -m stackgan_tf.train_text_encoder --run=my_run
    python -m stackgan_tf.train_text_encoder --run=birds --preset=birds --data_dir=data/birds \
        --noprecomputed_embeddings

`python -m stackgan_tf.train` does this by itself when the run has no text encoder yet. It takes
two to eight minutes on two CPU cores with the built-in flowers. Only the split "train" is learned
from. checkpoints/<run>/text_encoder/ then holds config.json, ckpt/, saved_model/ (captions: string
[B] -> embeddings: float32 [B, dim]), image_encoder/ (a SavedModel of the pictures' side, for
evaluate's R-precision), logs/ for TensorBoard and metrics.jsonl. Ctrl-C, SIGTERM or SIGHUP
saves a checkpoint; the same command goes on from it and ends with the same weights.
"""

import dataclasses
import functools
import json

import keras
import numpy as np
import tensorflow as tf

from stackgan_tf import (
    below,
    build,
    characters,
    checkpoint,
    config,
    devices,
    logs,
    pipeline,
    progress,
    run_folder,
    saved_parts,
    stream,
)
from stackgan_tf.adam import FusedAdam
from stackgan_tf.config import Config, UserError
from stackgan_tf.messages import printable
from stackgan_tf.text_encoders import char_cnn, char_cnn_rnn, joint_embedding, whitening

IMAGE_SIZE = 64  # what captions say can be seen at this size
PAIRS = 16_384  # about so many captions and their pictures is the whitening computed of
NETWORKS = {"char_cnn_rnn": char_cnn_rnn.CharCnnRnn, "char_cnn": char_cnn.CharCnn}
RELEVANT = ("seed", "dataset", "data_dir", "image_dir", "captions_dir", "images_per_class",
            "shuffle_captions", "memory_gb", "shuffle_buffer", "crop_margin", "embedding_dim",
            "text_encoder_network", "text_encoder_width", "text_encoder_steps",
            "text_encoder_batch_size", "text_encoder_learning_rate", "text_encoder_loss",
            "text_encoder_temperature", "text_encoder_grayscale")


class Data:
    """Captions as tokens beside their pictures; `data(step)` is the batch of that step."""

    def __init__(self, examples: pipeline.Examples, batch_size: int, seed: int, gray: float):
        pipeline.require_captions(examples.captions)
        self.seed, self.gray = seed, gray
        self.batches = pipeline.Batches(examples, image_size=IMAGE_SIZE, batch_size=batch_size,
                                        seed=seed)
        self.has_classes = self.batches.labels is not None
        # without classes every picture is its own
        self.labels = self.batches.labels if self.has_classes else np.arange(len(examples))
        self.offsets = np.cumsum([0] + [len(row) for row in examples.captions])
        flat = [caption for row in examples.captions for caption in row]
        self.tokens = np.concatenate([  # uint8: a quarter of the memory
            characters.tokenize(flat[i:i + 10_000]).numpy().astype(np.uint8)
            for i in range(0, len(flat), 10_000)])
        read = np.minimum([len(caption.encode()) for caption in flat], self.tokens.shape[1])
        blank = int(((self.tokens > 0).sum(1) < read / 2).sum())
        if blank:
            print(f"warning: {blank:,} of {len(flat):,} captions are for the most part characters "
                  "that this text encoder does not know (it reads English letters, digits and "
                  "marks); for other languages give one as --text_encoder=PATH.", flush=True)

    def __call__(self, step):
        """tokens uint8 (B, 201), images uint8 (B, S, S, 3), labels (B,); a caption a picture."""
        indices = self.batches.indices(step)
        generator = np.random.Generator(np.random.Philox(
            np.random.SeedSequence([self.seed, 2, step])))  # 0 and 1 are pipeline.Batches's
        captions = generator.integers(self.offsets[indices], self.offsets[indices + 1])
        images = np.stack([self.batches.crop(i, generator) for i in indices])
        images = without_color(images, self.gray, self.seed, step)
        return self.tokens[captions], images, self.labels[indices]

    def pairs(self):
        """Captions from all over and their pictures: tokens uint8 (N, 201), images uint8 (M, S, S,
        3), and the place of each caption's picture among them, int (N,)."""
        captions = np.arange(len(self.tokens))[::max(1, len(self.tokens) // PAIRS)]
        pictures, places = np.unique(np.searchsorted(self.offsets, captions, "right") - 1,
                                     return_inverse=True)
        images = pipeline.center_crop(self.batches.examples.images[pictures], IMAGE_SIZE)
        return self.tokens[captions], images, places


class StreamData:
    """The same of a set too large for memory, for steps that follow each other."""

    def __init__(self, rows: stream.Stream, total: int, gray: float):
        self.batches, self.total, self.next, self.gray = rows, total, None, gray
        self.has_classes = rows.prepared.has_labels

    def __call__(self, step):
        if step != self.next:
            self.rows = self.batches.rows(step, self.total)
        self.next = step + 1
        row = next(self.rows)
        labels = row["label"] if self.has_classes else np.arange(self.batches.batch_size)
        images = np.where(row["flip"].numpy()[:, None, None, None],
                          row["image"].numpy()[:, :, ::-1], row["image"].numpy())
        images = without_color(images, self.gray, self.batches.order.seed, step)
        return characters.tokenize(row["captions"][:, 0]), images, labels

    def pairs(self):
        """As of `Data`; those of the first steps, which the shards' order makes a random sample."""
        steps = min(self.total, -(-PAIRS // self.batches.batch_size))
        tokens, images, _ = (np.concatenate(part) for part in zip(*map(self, range(steps))))
        return tokens, images, np.arange(len(tokens))


def without_color(images, share, seed, step):
    """A random `share` of pictures uint8 (B, S, S, 3) in gray, the choice that of (seed, step).

    Colors alone tell most pictures of a batch apart, so shapes are learnt late or not at all;
    SimCLR (Chen et al. 2020, Sec. 3.1) found the same.
    """
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, 5, step])))
    chosen = generator.random(len(images)) < share
    images = np.array(images)
    images[chosen] = images[chosen].mean(-1, keepdims=True)
    return images


class Trainer:
    """Both encoders, their optimizer and the step that trains them."""

    def __init__(self, settings: Config):
        keras.utils.set_random_seed(settings.seed)
        keras.config.set_dtype_policy("float32")
        network = NETWORKS[settings.text_encoder_network]
        self.text = network(settings.embedding_dim, settings.text_encoder_width)
        self.image = joint_embedding.ImageEncoder(settings.embedding_dim)
        self.text(np.zeros((1, characters.CAPTION_LENGTH), np.int32))
        self.image(np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.float32))
        self.variables = self.text.trainable_variables + self.image.trainable_variables
        # To a tenth over the run: Reed's 0.98 an epoch comes to that at his number of steps.
        self.optimizer = FusedAdam(keras.optimizers.schedules.ExponentialDecay(
            settings.text_encoder_learning_rate, settings.text_encoder_steps, 0.1), name="adam")
        self.optimizer.build(self.variables)
        self.loss = joint_embedding.TEXT_LOSSES[settings.text_encoder_loss]
        self.cosine = settings.text_encoder_loss == "contrastive"
        if self.cosine:
            self.loss = functools.partial(self.loss, temperature=settings.text_encoder_temperature)

    @property
    def parts(self):
        return {"text_encoder": self.text.weights, "image_encoder": self.image.weights,
                "optimizer": self.optimizer.variables}

    @tf.function(autograph=False)
    def step(self, tokens, images, labels):
        """One update; {name: float32 scalar}."""
        with tf.GradientTape() as tape:
            text = self.text(tf.cast(tokens, tf.int32))
            image = self.image(_float(images), training=True)
            loss = self.loss(text, image, labels)
        self.optimizer.apply(tape.gradient(loss, self.variables), self.variables)
        return {"loss": loss, **joint_embedding.retrieval(text, image, labels, self.cosine)}

    @tf.function(reduce_retracing=True, autograph=False)
    def embed_tokens(self, tokens):
        return self.text(tf.cast(tokens, tf.int32))

    @tf.function(reduce_retracing=True, autograph=False)
    def embed_images(self, images):
        return self.image(_float(images))


def _float(images):
    return tf.cast(images, tf.float32) / 127.5 - 1.0


def train(settings: Config) -> int:
    """Trains and exports the run's text encoder, or goes on with it; returns the exit code."""
    devices.settle_determinism(settings)
    part = _check(settings)
    fixed = not part.has_checkpoints()  # there is nothing to export it from again
    done = part.is_exported() and (fixed or saved_parts.is_whole(part.saved_model))
    # an older version kept no image encoder, its checkpoint has it
    if done and (fixed or saved_parts.is_whole(part.image_encoder)):
        print(f"{part.path} is finished; nothing to do.")
        return 0
    data = _load(dataclasses.replace(settings, stage=1, image_size=IMAGE_SIZE))
    part.open(settings, RELEVANT, build.data_note(settings, data.batches))
    settings = dataclasses.replace(settings, stage=1, image_size=IMAGE_SIZE)
    trainer = Trainer(settings)
    checkpoints = checkpoint.Checkpoints(part.checkpoints, trainer.parts, settings.keep_checkpoints)
    start = checkpoints.restore()
    if done:
        if start < settings.text_encoder_steps:
            raise UserError(f"{part.path} is finished, and {checkpoints.last()}: that of step "
                            f"{settings.text_encoder_steps} is needed to keep the image encoder.")
        _export_image_encoder(part, trainer, *_map_of(part, trainer, data.pairs()[0]))
        print(f"image encoder exported to {part.image_encoder}")
        return 0
    if start:
        print(f"text encoder: going on from step {start}")
    if start < settings.text_encoder_steps:  # else nothing is learnt
        part.write_trained_on(build.picture_keys(data.batches),
                              *[part.read_trained_on()] * bool(start))
    with progress.StopSignal() as stop:
        done = _loop(settings, part, trainer, data, checkpoints, start, stop)
    if done < settings.text_encoder_steps:
        print(f"stopped; checkpoint of step {done} saved. The same command goes on from it.")
        return 128 + stop.number
    _finish(settings, part, trainer, data)
    return 0


def _check(settings):
    part = run_folder.Part(settings.checkpoint_dir, settings.run, "text_encoder")
    run_folder.refuse_unwritable(part.path)
    if not settings.embedding_dim:
        raise UserError("--embedding_dim=0 trains without text, so there is no text encoder to "
                        "train; leave the flag out.")
    if settings.text_encoder:
        raise UserError(f"--text_encoder={settings.text_encoder} names one that is there already; "
                        "leave the flag out to train one.")
    if build.embedding_dim(settings):
        raise UserError(f"the embeddings of --dataset={settings.dataset} come with it, so there is "
                        "no text encoder to train; to train one on its captions instead, add "
                        "--noprecomputed_embeddings.")
    part.check(settings, RELEVANT)
    return part


def _load(settings):
    batch_size = settings.text_encoder_batch_size
    if rows := build.open_stream(settings, batch_size, captions_per_embedding=1):
        return StreamData(rows, settings.text_encoder_steps, settings.text_encoder_grayscale)
    examples = build.load_training(settings)
    below.check_text_batch(settings, len(examples))
    return Data(examples, batch_size, settings.seed, settings.text_encoder_grayscale)


def _loop(settings, part, trainer, data, checkpoints, start, stop):
    """Steps until the end or a signal; returns the number of steps done, which are saved."""
    total, step, saved = settings.text_encoder_steps, start, start
    log_files = logs.Logs(part.logs)
    shown = progress.Progress("text encoder", start, total, settings.log_steps,
                              settings.text_encoder_batch_size)
    while step < total and not stop.number:
        values = trainer.step(*data(step))
        step += 1
        log = step % settings.log_steps == 0 or step == total
        values = _report(part, log_files, trainer, data, values, step) if log else None
        # before anything is shown: who reads it may have gone
        if step % settings.checkpoint_steps == 0 or step == total or stop.number:
            checkpoints.save(step)
            saved = step
        shown.update(step, values)
    shown.close()
    if step > saved:  # a signal may have come since
        checkpoints.save(step)
    return step


def _report(part, log_files, trainer, data, values, step):
    """Writes a step's numbers to TensorBoard and metrics.jsonl."""
    values = {f"text_encoder/{name}": float(value) for name, value in values.items()
              if data.has_classes or name != "retrieval_class"}
    if not np.isfinite(values["text_encoder/loss"]):
        raise UserError(f"the loss is {values['text_encoder/loss']} at step {step}; try a lower "
                        "--text_encoder_learning_rate and another --run.")
    rate = float(trainer.optimizer.learning_rate.numpy())
    with log_files.writing():
        for name, value in {**values, "text_encoder/learning_rate": rate}.items():
            logs.scalar(name, value, step)
        _write_metrics(part, {"step": step, **values})
    return values


def _write_metrics(part, values):
    with tf.io.gfile.GFile(part.metrics, "a") as file:
        file.write(json.dumps(values) + "\n")


def _embed(function, rows):
    """Rows of tokens or pictures through an encoder, 256 at a time: float32 (N, D)."""
    return np.concatenate([function(rows[i:i + 256]).numpy() for i in range(0, len(rows), 256)])


def _finish(settings, part, trainer, data):
    """Scores the encoder on pictures it has not seen and exports it."""
    values = _test(settings, trainer)
    if values:
        print("text encoder, test pictures: "
              + ", ".join(f"{name} {value:.3f}" for name, value in values.items()))
        _write_metrics(part, {"step": settings.text_encoder_steps,
                              **{f"text_encoder/test_{k}": v for k, v in values.items()}})
    _export(part, trainer, data)


def _export(part, trainer, data):
    """Writes the image encoder's SavedModel, then the text encoder's, which says it is finished."""
    tokens, images, places = data.pairs()
    mean, matrix, longest = whitening.compute(
        _embed(trainer.embed_tokens, tokens), _embed(trainer.embed_images, images)[places])
    _export_image_encoder(part, trainer, mean, matrix)
    serve = whitening.serving_function(trainer.text, mean, matrix, longest)
    signature = [tf.TensorSpec([None], tf.string, name="captions")]
    checkpoint.export(part.saved_model, [trainer.text], {"serve": (serve, signature)})
    print(f"text encoder exported to {part.saved_model}")


def _export_image_encoder(part, trainer, mean, matrix):
    of_images, of_text = joint_embedding.joint_functions(
        trainer.image, mean, matrix, trainer.cosine)
    shapes = {"images": [None, IMAGE_SIZE, IMAGE_SIZE, 3], "embeddings": [None, len(mean)]}
    images, embeddings = (tf.TensorSpec(shape, tf.float32, name) for name, shape in shapes.items())
    checkpoint.export(part.image_encoder, [trainer.image], {
        "serve": (of_images, [images]), "from_text": (of_text, [embeddings])})


def _map_of(part, trainer, tokens):
    """The mean and the matrix that the version which exported a text encoder chose for it."""
    raw = _embed(trainer.embed_tokens, tokens)
    captions = characters.captions_of(tokens)
    served = _embed(saved_parts.TextEncoder(part.saved_model), captions)
    lengths = np.linalg.norm(served, axis=1)
    free = lengths <= 0.999 * lengths.max()  # not cut to the longest
    free = free if free.sum() > len(raw) / 2 else np.ones(len(raw), bool)
    raw, served = np.float64(raw[free]), served[free]
    matrix = np.linalg.lstsq(raw - raw.mean(0), served - served.mean(0), rcond=1e-6)[0]
    return raw.mean(0) - served.mean(0) @ np.linalg.pinv(matrix, 1e-5), matrix


def _test(settings, trainer, most=1000):
    """Retrieval among up to 1000 test pictures by their first captions; {} if there are none."""
    try:
        # the order of a prepared set is random, so its first pictures will do
        first = 4 * most if settings.dataset == "prepared" else None
        examples = build.load_held_out(settings, first)
    except UserError as error:  # a folder need not have a test split
        print("text encoder: not scored,", printable(str(error).splitlines()[0]))
        return {}
    rows = [i for i in range(len(examples)) if examples.captions[i]]
    rows = rows[::max(1, -(-len(rows) // most))]  # spread over all classes
    if not rows:
        return {}
    pictures = pipeline.center_crop(examples.images[rows], IMAGE_SIZE)
    tokens = characters.tokenize([examples.captions[i][0] for i in rows]).numpy()
    labels = np.arange(len(rows)) if examples.labels is None else examples.labels[rows]
    values = joint_embedding.retrieval(
        _embed(trainer.embed_tokens, tokens), _embed(trainer.embed_images, pictures), labels,
        trainer.cosine)
    values = {name: float(value) for name, value in values.items()}
    if examples.labels is None:
        del values["retrieval_class"]
    return {**values, "test_pictures": len(rows)}


def main(argv):
    del argv
    return train(config.resolve(config.given_flags()))


if __name__ == "__main__":
    config.define_flags()
    config.run_cli(main)
