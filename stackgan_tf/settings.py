"""The settings that a training starts with: its flags, what is there already, and the machine."""

import dataclasses

from stackgan_tf import below, build, devices, saved_parts
from stackgan_tf.config import Config, UserError, resolve
from stackgan_tf.joint_space import JointSpace
from stackgan_tf.run_folder import Part, same_path


def from_flags(given: dict) -> Config:
    """The Config of a start: flags, the run's Stage-I, preset; the embeddings' own size.

    `precomputed_embeddings` in it says whether there are any: the run's config.json tells
    `sample` so.

    Args:
        given: what config.given_flags gives.
    """
    shared = None
    if given.get("stage") == 2:
        shared = Part(given.get("checkpoint_dir", Config.checkpoint_dir),
                      given.get("run", Config.run), "stage1").known_config()
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
        kept = same_path((text.read_config() or {}).get("text_encoder", ""), config.text_encoder)
        path = text.saved_model if kept and text.is_exported() else config.text_encoder
        encoder = saved_parts.TextEncoder(path)
        if path == config.text_encoder:  # not yet the run's
            encoder.check()
        dim = encoder.dim
        if given.get("embedding_dim", dim) != dim:
            raise UserError(f"--embedding_dim={config.embedding_dim} does not fit the text encoder "
                            f"{config.text_encoder}, which gives {dim}; leave it out.")
        config = dataclasses.replace(config, embedding_dim=dim)
    if config.matching_weight:
        _check_image_encoder(config)
    return config


def _check_image_encoder(config):
    """UserError if there will be none to match pictures and captions with."""
    what = f"--matching_weight={config.matching_weight}"
    text = Part(config.checkpoint_dir, config.run, "text_encoder")
    if text.is_exported() and (reason := JointSpace.missing(text, what, "it")):
        raise UserError(reason)
    if config.precomputed_embeddings or not below.has_image_encoder(config, text):
        why = ("the data brings its own embeddings" if config.precomputed_embeddings else
               f"--text_encoder={config.text_encoder} has none beside it")
        raise UserError(f"{what} needs an image encoder, which text encoders that are trained here "
                        f"have, and {why}; leave it out.")


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
