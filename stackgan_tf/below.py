"""What a stage stands on: the frozen Stage-I under Stage-II, and the run's text encoder."""

import contextlib
import json
import os
import sys

import tensorflow as tf

from stackgan_tf import build, checkpoint, disk, processes, saved_parts
from stackgan_tf.config import TEXT_FIELDS, Config, UserError, to_flags
from stackgan_tf.run_folder import CONFIG, Part, flags_of_place, read_trained_on


def find_stage1(config: Config, part: Part) -> str | None:
    """Path of the SavedModel to put under Stage-II; UserError if there is none."""
    if config.stage == 1:
        return None
    own = Part(config.checkpoint_dir, config.run, "stage1")
    kept = kept_stage1(part)
    if tf.io.gfile.exists(kept) and part.is_begun():
        return kept
    if part.has_checkpoints():
        raise UserError(f"{kept}, the Stage-I that {part.path} was trained on, is gone; put it "
                        "back, or move that folder away to train Stage-II anew.")
    if config.stage1:
        _fitting(config, config.stage1)
        return config.stage1
    if not own.is_exported():
        place = flags_of_place(config.checkpoint_dir, config.run)
        raise UserError(f"--stage=2 needs a Stage-I and {own.saved_model} is not there; first run "
                        f"python -m stackgan_tf.train --stage=1{place}, or give --stage1=PATH.")
    _fitting(config, own.saved_model)
    return own.saved_model


def _fitting(config, path):
    """UserError, before the data is read, if Stage-II cannot stand on the Stage-I at `path`."""
    stage1 = saved_parts.Stage1(path)
    build.latent_dims(config, stage1)
    stage1.check()


def check_text_encoder(config: Config, source: str, text: Part) -> None:
    """UserError if Stage-I `source` was trained on captions as another text encoder reads them.

    To it, another encoder's vectors are noise, even where they are of the same size.
    """
    if not config.embedding_dim:
        return
    theirs = checkpoint.encoder_fingerprint(source)
    if config.precomputed_embeddings:
        if theirs is not None:
            print(f"warning: Stage-I {source} was trained with a text encoder; the embeddings of "
                  f"--dataset={config.dataset} must be of the same one.", flush=True)
        return
    dim = 0 if theirs is not None else saved_parts.Stage1(source).dim("embeddings")
    if theirs is None and not dim:
        return  # it reads no captions
    there = _encoder_path(config, text)
    if not there and theirs is None and not text.is_begun():
        raise UserError(f"Stage-I {source} reads embeddings of {dim} numbers, and which text "
                        "encoder makes them is not known; give data that brings such embeddings "
                        "(Reed's layout, or prepared from it), or the encoder as "
                        "--text_encoder=PATH.")
    if not there:
        raise UserError(f"the text encoder that Stage-I {source} was trained with is not in "
                        f"{text.path}; {text.remedy()}; or give it as --text_encoder=PATH.")
    if theirs is None:
        print(f"warning: Stage-I {source} does not say which text encoder it was trained with; "
              "see to it that it is the one of this run.", flush=True)
    elif not _encoder(config, text).has(theirs):
        raise UserError(f"text encoder {there} is not the one that Stage-I {source} was trained "
                        "with; give that one as --text_encoder=PATH (the text_encoder/saved_model "
                        "of Stage-I's run), with a new --run if this one has one.")


def check_own_text_encoder(config: Config, part: Part, text: Part) -> None:
    """UserError if a stage that was exported before would go on with another text encoder."""
    theirs = checkpoint.encoder_fingerprint(part.saved_model)
    path = _encoder_path(config, text)
    if theirs is not None and not (path and _encoder(config, text).has(theirs)):
        remedy = f"put it back as {text.saved_model}"
        if not path and text.has_checkpoints():
            remedy = text.remedy()
        raise UserError(f"the text encoder that {part.saved_model} was trained with is not "
                        f"{path or 'there'}; {remedy}, or choose another --run.")


def _encoder(config, text):
    remedy = text.remedy() if text.is_exported() else saved_parts.OTHER
    return saved_parts.TextEncoder(_encoder_path(config, text), remedy)


def _encoder_path(config, text):
    """The run's text encoder, or the one that it is to have; "" if it is to train one."""
    return text.saved_model if text.is_exported() else config.text_encoder


def has_image_encoder(config: Config, text: Part) -> bool:
    """Whether the run's text encoder has, or will have, an image encoder beside it."""
    if text.is_exported():
        return tf.io.gfile.exists(text.image_encoder)
    return not config.text_encoder or tf.io.gfile.exists(image_encoder_beside(config.text_encoder))


def image_encoder_beside(text_encoder: str) -> str:
    """Where the image encoder of a text encoder's SavedModel lies, if it has one."""
    return os.path.join(os.path.dirname(text_encoder.rstrip("/")), "image_encoder")


def kept_stage1(part: Part) -> str:
    """Where a Stage-II part has the Stage-I that it stands on."""
    return os.path.join(part.path, "stage1")


def keep_stage1(source: str, part: Part) -> None:
    """Copies Stage-I into the Stage-II part: training Stage-I on must not move it under us."""
    kept = kept_stage1(part)
    if source != kept:
        checkpoint.copy_directory(source, kept)
        # and how it was made, which may have changed beside the source when an export asks for it
        settings = os.path.join(kept, CONFIG)
        with contextlib.suppress(UserError):  # a stranger's
            theirs = Part(os.path.dirname(source.rstrip("/")), "", "").read_config()
            if theirs and not tf.io.gfile.exists(settings):
                disk.write_whole(settings, json.dumps(theirs, indent=2).encode())
        part.write_trained_on(_trained_on_beside(source))


def _trained_on_beside(saved_model):
    return read_trained_on(os.path.dirname(saved_model.rstrip("/")))


def needs_text_encoder(config: Config, text: Part) -> bool:
    """Whether the run reads captions and has no text encoder yet."""
    return bool(config.embedding_dim and not config.precomputed_embeddings
                and not text.is_exported())


def check_text_batch(config: Config, pictures: int) -> None:
    """UserError if a batch of the text encoder's training is more than there are pictures."""
    if config.text_encoder_batch_size > pictures > 1:  # Batches refuses a single one
        raise UserError(f"--text_encoder_batch_size={config.text_encoder_batch_size} is more than "
                        f"the {pictures} pictures of the data; try --text_encoder_batch_size="
                        f"{max(2, pictures // 2)}.")


def prepare_text_encoder(config: Config, text: Part, data: str | None = None) -> int:
    """Sees to it that the run has a text encoder; returns an exit code, 0 if all is well.

    `data` is build.data_note's.
    """
    if not needs_text_encoder(config, text):
        return 0
    if config.text_encoder:
        text.open(config, TEXT_FIELDS, data)
        # another run's has beside it the image encoder that R-precision and matching need
        images = image_encoder_beside(config.text_encoder)
        if tf.io.gfile.exists(images):
            checkpoint.copy_directory(images, text.image_encoder)
        checkpoint.copy_directory(config.text_encoder, text.saved_model)
        text.write_trained_on(_trained_on_beside(config.text_encoder))
        return 0
    print("this run has no text encoder yet: training it first", flush=True)
    # A process of its own gives its memory back; its flags are this run's.
    code, stopped = processes.run(
        [sys.executable, "-m", "stackgan_tf.train_text_encoder", *to_flags(config)],
        # a TPU can be opened once; this one trains on the processors beside it
        env={**os.environ, "TPU_LOAD_LIBRARY": "0"})
    return 128 + stopped if stopped else code
