"""Any prepared data set of TensorFlow Datasets: `--dataset=tfds:NAME`; nothing is downloaded.

NAME is TFDS's: `coco_captions`, `caltech_birds2011`, `name/config`, `name:1.0.0`, or a data set of
your own that lies prepared in `--data_dir` ("": ~/tensorflow_datasets). Pictures are the feature
"image"; one box a picture (caltech_birds2011) is cropped to, as the paper does.

Captions are the data's own, where it has a text feature of such a name; else those of
`--captions_dir` (Reed's `text_c10/` for birds and flowers); else made from the label's name,
which is said at the start: such captions name the class and nothing that sets its pictures apart.
"""

import os
import re
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from stackgan_tf import disk, images, picture_files
from stackgan_tf.caption_files import CaptionFiles, is_empty
from stackgan_tf.datasets import NoSplit

CAPTIONS = ("captions", "caption", "texts", "text", "sentences", "sentence", "descriptions",
            "description")
FILE_NAMES = ("image/filename", "file_name", "filename", "image/file_name", "image_id", "image/id")
SPLITS = {"train": ("train",), "test": ("test", "validation", "val")}
WORDINGS = ("a photo of {}.", "this is {}.", "the picture shows {}.", "{}, seen up close.",
            "here is a photo that shows {}.")


def examples(config, split: str) -> Iterator[dict]:
    """A split in the order of its files; what is there is checked by the call.

    Args:
        config: has `dataset`, `data_dir`, `captions_dir` and `embedding_dim`.
        split: "train", or "test" (TFDS's "test", else "validation").

    Returns:
        iterator of dicts: image uint8 (H, W, 3), file_name str and label int where TFDS has one,
        captions list of str (not without text).

    Raises:
        ValueError: one line, at once: an unknown name, data that is not prepared (with the
            command that does it), no pictures, no captions.
    """
    builder = _builder(config)
    dataset = _read(builder, config, split)
    return _elements(config, split, builder.info.features, dataset)


def _name(config):
    name = config.dataset.removeprefix("tfds").removeprefix(":")
    # Without a namespace: "huggingface:name" would be looked for in the network.
    if not re.fullmatch(r"\w+(/[\w.+-]+)?(:[\d.]+)?", name):
        raise ValueError(f"--dataset={config.dataset} names no data set of TFDS; write it like "
                         "tfds:coco_captions, tfds:name/config or tfds:name:1.0.0.")
    return name


def _builder(config):
    name = _name(config)
    folder = disk.tfds_folder(config.data_dir)
    try:
        return tfds.builder(name, data_dir=folder)
    except tfds.core.DatasetNotFoundError as error:
        where = folder or "~/tensorflow_datasets"
        raise ValueError(f"--dataset={config.dataset} is not known to TFDS {tfds.__version__} and "
                         f"not prepared in {where}; see its catalog for the name, or give the "
                         "--data_dir that holds it.") from error
    except Exception as error:  # a wrong version or config, a package that its code imports
        raise ValueError(f"--dataset={config.dataset}: {_one_line(error)}") from error


def _one_line(error):
    return " ".join(str(error).split())[:300]


def _read(builder, config, split):
    known = list(builder.info.splits)  # empty if it is not prepared
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; use 'train' or 'test'.")
    wanted = [name for name in SPLITS[split] if name in known]
    if known and not wanted:
        raise NoSplit(f"--dataset={config.dataset} has no split {' or '.join(SPLITS[split])}, "
                      f"only {', '.join(known)}; choose another data set, or prepare "
                      "it with splits of these names.")
    if wanted and not builder.info.splits[wanted[0]].num_examples:
        raise ValueError(f"--dataset={config.dataset}: its split {wanted[0]} is empty; prepare it "
                         "again with pictures in it, or choose another data set.")
    if _picture(builder.info.features) is None:
        raise ValueError(f"--dataset={config.dataset} has no feature that is one picture, only "
                         f"{', '.join(builder.info.features)}; choose another, or prepare it with "
                         "tfds.features.Image.")
    # Only what is used is decoded: segmentation masks take as long as the pictures.
    features = builder.info.features
    used = {_picture(features), *CAPTIONS, *FILE_NAMES, "label",
            "label_name", "bbox"} & set(features)
    read_config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
    try:
        return builder.as_dataset(
            split=wanted[0] if wanted else SPLITS[split][0], shuffle_files=False,
            read_config=read_config, decoders=tfds.decode.PartialDecoding(
                {name: True for name in used}))
    except AssertionError as error:  # "could not find data"
        raise ValueError(f"--dataset={config.dataset} is not prepared in "
                         f"{config.data_dir or '~/tensorflow_datasets'}; download it with: "
                         f"{download_command(config)}") from error


def download_command(config) -> str:
    """What to type to have TFDS download and prepare the data."""
    folder = f", data_dir={os.path.expanduser(config.data_dir)!r}" if config.data_dir else ""
    return ('python -c "import tensorflow_datasets as tfds; '
            f'tfds.builder({_name(config)!r}{folder}).download_and_prepare()"')


def _picture(features):
    """The name of the feature that is the picture; None without."""
    names = [name for name in features if isinstance(features[name], tfds.features.Image)]
    return "image" if "image" in names else names[0] if names else None


def _elements(config, split, features, dataset):
    """Checks where captions come from; returns the generator."""
    text = config.embedding_dim > 0
    own = next((name for name in CAPTIONS if name in features
                and _texts_spec(dataset.element_spec[name]) is not None), None)
    files = CaptionFiles(config.captions_dir) if config.captions_dir and text else None
    form = features["bbox"].bbox_format if _boxed(features) else None
    if form and form.name != "REL_YXYX":
        raise ValueError(f"--dataset={config.dataset}: the boxes of its feature 'bbox' are "
                         f"{form.name}; prepare the set with those from 0 to 1: top, left, bottom, "
                         "right (REL_YXYX).")
    label = features["label"] if "label" in features else None
    named = "label_name" in features or isinstance(label, tfds.features.ClassLabel)
    if label is not None and dataset.element_spec["label"] == tf.TensorSpec((), tf.string):
        raise ValueError(f"--dataset={config.dataset}: its feature 'label' is a text, not the "
                         "number of a class; prepare it as tfds.features.ClassLabel, or, if it "
                         "describes the picture, under the name 'caption'.")
    if files:
        source = f"captions from {files.folder}"
    elif own:
        source = f"captions from its feature {own!r}"
    elif not text:
        source = "no captions"
    elif named:
        source = "has no captions; made from its label names (others: --captions_dir)"
    else:
        raise ValueError(f"--dataset={config.dataset} has no captions and no label names to make "
                         "them from; give --captions_dir, or train without text: "
                         "--embedding_dim=0.")
    print(f"{config.dataset} {split}: {source}", flush=True)
    return _generate(config, split, dataset, features, own, files)


def _texts_spec(spec):
    """The string part of a feature's TensorSpec: Text, Sequence(Text) or Sequence({"text": ...})"""
    if isinstance(spec, dict):
        spec = next((spec[name] for name in CAPTIONS if name in spec), None)
    is_text = isinstance(spec, tf.TensorSpec) and spec.dtype == tf.string and spec.shape.rank < 2
    return spec if is_text else None


def _boxed(features):
    return "bbox" in features and isinstance(features["bbox"], tfds.features.BBoxFeature)


def _generate(config, split, dataset, features, own, files):
    picture = _picture(features)
    boxed = _boxed(features)
    for i, row in enumerate(dataset.as_numpy_iterator()):
        try:
            image = picture_files.rgb(row[picture])
        except ValueError as error:
            raise ValueError(f"--dataset={config.dataset} {split}: picture {i} {error} Prepare the "
                             "set with such pictures.") from error
        if boxed:
            height, width = image.shape[:2]
            top, left, bottom, right = row["bbox"] * [height, width, height, width]
            image = images.crop_to_box(image, (left, top, right - left, bottom - top))
        example = {"image": image}
        if file_name := next((_text(row[name]) for name in FILE_NAMES if name in row), ""):
            example["file_name"] = file_name
        if "label" in row and np.ndim(row["label"]) == 0:
            example["label"] = int(row["label"])
        if files:
            example["captions"] = files.of(file_name)
            if not example["captions"]:
                raise ValueError(f"{files.folder} has no captions of {file_name or 'nameless'}, "
                                 f"picture {i} of --dataset={config.dataset} {split}; add its .txt "
                                 "file.")
        elif own:
            texts = row[own]
            if isinstance(texts, dict):
                texts = next(texts[name] for name in CAPTIONS if name in texts)
            texts = map(_text, np.atleast_1d(texts))
            example["captions"] = [caption for caption in texts if not is_empty(caption)]
        elif config.embedding_dim:
            if "label_name" not in row and example["label"] < 0:  # int2str counts from the end
                raise ValueError(f"--dataset={config.dataset} {split}: picture {i} "
                                 f"{f'({file_name}) ' if file_name else ''}has the label "
                                 f"{example['label']}, TFDS's for unknown, and no class to make "
                                 "captions from; give --captions_dir, or train "
                                 "without text: --embedding_dim=0.")
            # caltech_birds2011's labels have numbers for names, and the names beside them
            example["captions"] = captions_of(
                _text(row["label_name"]) if "label_name" in row
                else features["label"].int2str(example["label"]))
        yield example


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def captions_of(label_name: str) -> list[str]:
    """Captions that name a class: "a photo of a robin." and others.

    Args:
        label_name: as TFDS has it: "001.Black_footed_Albatross" is a "black footed albatross".
    """
    name = re.sub(r"^\d+\.(?=\D)", "", label_name)
    name = " ".join(re.sub(r"[_\s]+", " ", name).lower().split())
    article = "an" if name[:1] in "aeiou" else "a"
    return [wording.format(f"{article} {name}") for wording in WORDINGS]
