"""What is in a data set: its numbers, gathered picture by picture.

Of a picture only a hash, its sizes and counts are kept, of a caption two lengths and three hashes:
about 300 bytes a picture and 30 a caption, whatever their size.
"""

import array
import collections
import hashlib
import re
import string
import unicodedata

import numpy as np

from stackgan_tf import images, picture_files
from stackgan_tf.characters import ALPHABET, CAPTION_LENGTH
from stackgan_tf.pipeline import text

# Left out of the most frequent words and of the comparison of captions.
STOP_WORDS = frozenset(
    "a an and are as at be been but by for from has have in into is it its of on or so that the "
    "their there these this those to very was were which while with".split())
_KNOWN = frozenset(ALPHABET + string.ascii_uppercase)
_EXAMPLES = 50_000  # distinct captions that are kept as texts, to quote the most repeated


def normalized(caption: str) -> str:
    """Lower case, one space between words, no punctuation; emoji and other symbols stay."""
    if caption.isascii():
        return " ".join(re.split(r"[\W_]+", caption.lower())).strip()
    kept = (" " if unicodedata.category(c)[0] in "PZC" or c in string.punctuation else c
            for c in caption.casefold())
    return " ".join("".join(kept).split())


def content_words(caption: str) -> list[str]:
    """The words of a `normalized` caption without stop words, in order."""
    return [word for word in caption.split() if word not in STOP_WORDS]


def measure(element: dict, thumbnail: int = 0) -> dict:
    """The numbers of one element of `build.raw_elements`; decodes a `path`.

    Args:
        element: a dict of NumPy values, see datasets/.
        thumbnail: side of the small picture to make, 0 for none.

    Returns:
        dict with "error" if it cannot be read; without pixels otherwise, but for "thumbnail".
    """
    found = {"file_name": text(element.get("file_name", "")), "label": element.get("label"),
             "class_name": element.get("class_name"), "embeddings": element.get("embeddings"),
             "captions": [text(c) for c in element.get("captions", ())]}
    try:
        if "error" in element:
            raise ValueError(element["error"])
        if "path" in element:
            image = picture_files.read_rgb(element["path"])
            found["mode"] = picture_files.read_mode(element["path"])
        else:
            image = np.asarray(element["image"])
    except ValueError as error:
        return {**found, "error": str(error)}
    red = image[..., :1]
    found |= {
        "height": image.shape[0], "width": image.shape[1],
        "grey": bool((image == red).all()), "one_color": bool((image == image[0, 0]).all()),
        "digest": hashlib.blake2b(repr(image.shape).encode() + image.tobytes(),
                                  digest_size=16).digest(),
    }
    if thumbnail:
        found["thumbnail"] = images.resize_square(image, thumbnail)
    return found


class Split:
    """The numbers of a split; `add` takes what `measure` returns.

    Args:
        name: "train" or "test".
        seen: {pixel hash: (split, file)} of the pictures so far, shared by the splits.
    """

    def __init__(self, name: str, seen: dict):
        self.name, self.seen = name, seen
        self.count, self.unreadable, self.stopped = 0, [], None
        self.widths, self.heights = array.array("L"), array.array("L")
        self.modes, self.counts = collections.Counter(), collections.Counter()
        self.copies, self.leaks = [], []
        self.classes, self.class_names = collections.Counter(), {}
        self.captions, self.embeddings = Captions(), Embeddings()

    def add(self, found: dict) -> None:
        name = found["file_name"] or f"picture {self.count + len(self.unreadable)}"
        if "error" in found:
            self.unreadable.append({"file": name, "reason": found["error"]})
            return
        self.count += 1
        self.widths.append(found["width"])
        self.heights.append(found["height"])
        self.modes.update([found["mode"]] if "mode" in found else [])
        self.counts.update(key for key in ("grey", "one_color") if found[key])
        if found["digest"] in self.seen:
            split, first = self.seen[found["digest"]]
            (self.copies if split == self.name else self.leaks).append([name, first])
        else:
            self.seen[found["digest"]] = (self.name, name)
        if found["label"] is not None:
            label = int(found["label"])
            self.classes[label] += 1
            self.class_names.setdefault(label, found["class_name"] or f"{label} (as {name})")
        if found["embeddings"] is not None:
            self.embeddings.add(found["embeddings"])
        self.captions.add(found["captions"])

    def report(self) -> dict:
        """The split's part of report.json."""
        size = np.array([self.widths, self.heights])
        short, long = size.min(0), size.max(0)
        return {
            "pictures": self.count, "unreadable": self.unreadable, "stopped_at": self.stopped,
            "width": _spread(size[0]), "height": _spread(size[1]), "shorter_side": _spread(short),
            "long_to_short": [round(x, 2) for x in _spread(long / short)],
            "shorter_than_64": int((short < 64).sum()),
            "shorter_than_256": int((short < 256).sum()),
            "more_than_2_to_1": int((long > 2 * short).sum()),
            "modes": dict(self.modes.most_common()), "grey": self.counts["grey"],
            "one_color": self.counts["one_color"],
            "copies_in_split": self.copies, "copies_of_other_split": self.leaks,
            "classes": self._class_report(),
            "captions": self.captions.report(),
            "embeddings": self.embeddings.report(),
        }

    def _class_report(self):
        if not self.classes:
            return None
        rows = self.classes.most_common()
        (largest, _), (smallest, _) = rows[0], rows[-1]
        return {"count": len(rows), "pictures": _spread(list(self.classes.values())),
                "smallest": self.class_names[smallest], "largest": self.class_names[largest]}


class Captions:
    """Lengths, words and repetitions of captions."""

    def __init__(self):
        self.a_picture = array.array("L")
        self.words, self.characters = array.array("L"), array.array("L")
        self.hashes = [array.array("Q") for _ in range(3)]  # exact, normalized, content words
        self.frequency, self.texts = collections.Counter(), collections.Counter()
        self.unknown, self.counts = collections.Counter(), collections.Counter()

    def add(self, captions: list[str]) -> None:
        """The captions of one picture."""
        self.a_picture.append(len(captions))
        plain = [normalized(caption) for caption in captions]
        self.counts["repeated_in_picture"] += len(plain) - len(set(plain))
        for caption, words in zip(captions, plain):
            content = content_words(words)
            self.words.append(len(words.split()))
            self.characters.append(len(caption))
            self.frequency.update(content)
            strange = sorted(set(caption) - _KNOWN)
            self.unknown.update(strange)
            self.counts["empty"] += not caption.strip()
            # the encoder reads bytes: a letter outside ASCII is two or more
            self.counts["too_long"] += len(caption.encode("utf-8", "replace")) > CAPTION_LENGTH
            self.counts["outside_alphabet"] += bool(strange)
            keys = (caption, words or caption, " ".join(content) or words or caption)
            for hashes, key in zip(self.hashes, keys):
                hashes.append(_hash(key))
            if words in self.texts or len(self.texts) < _EXAMPLES:
                self.texts[words] += 1

    def report(self) -> dict | None:
        if not self.words:
            return None
        exact, plain, content = (len(np.unique(hashes)) for hashes in self.hashes)
        repeated, times = max(self.texts.items(), key=lambda item: item[1])
        return {
            "count": len(self.words), "a_picture": _spread(self.a_picture),
            "pictures_without": sum(not n for n in self.a_picture),
            "words": _spread(self.words), "characters": _spread(self.characters),
            **{key: self.counts[key] for key in ("empty", "too_long", "outside_alphabet")},
            "unknown_characters": dict(self.unknown.most_common(10)),
            "frequent_words": dict(self.frequency.most_common(10)),
            "duplicates": len(self.words) - exact,
            "duplicates_but_for_case_punctuation_space": exact - plain,
            "duplicates_but_for_stop_words": plain - content,
            "repeated_in_picture": self.counts["repeated_in_picture"],
            "most_repeated": {"caption": repeated, "times": times} if times > 1 else None,
        }


class Embeddings:
    """Embeddings that come with a data set, float (n, dim) a picture."""

    def __init__(self):
        self.count = self.not_finite = 0
        self.dims, self.total, self.squares = collections.Counter(), 0.0, 0.0

    def add(self, vectors) -> None:
        vectors = np.atleast_2d(np.asarray(vectors, np.float64))
        finite = np.isfinite(vectors)
        self.count += len(vectors)
        self.not_finite += int((~finite.all(1)).sum())
        self.dims[vectors.shape[1]] += len(vectors)
        vectors = vectors[finite.all(1)]
        self.total += vectors.sum()
        self.squares += (vectors**2).sum()

    def report(self) -> dict | None:
        if not self.count:
            return None
        dims = sorted(self.dims)
        numbers = (self.count - self.not_finite) * dims[0]
        mean = self.total / max(numbers, 1)
        return {"count": self.count, "dims": dims, "not_finite": self.not_finite,
                "mean": mean if len(dims) == 1 else None,
                "std": max(self.squares / max(numbers, 1) - mean**2, 0.0) ** 0.5
                if len(dims) == 1 else None}


def between(splits: list[Split]) -> dict | None:
    """What the splits have in common; None with a single one."""
    if len(splits) < 2:
        return None
    train, test = splits
    common = set(train.classes) & set(test.classes)
    known = np.isin(np.array(test.captions.hashes[1], np.uint64),
                    np.array(train.captions.hashes[1], np.uint64))
    return {"classes_in_both": len(common) if train.classes or test.classes else None,
            "test_pictures_in_train": len(test.leaks),
            "test_captions_in_train": int(known.sum())}


def _spread(values) -> list:
    """Minimum, median and maximum."""
    values = np.asarray(values)
    return [np.min(values).item(), np.median(values).item(), np.max(values).item()]


def _hash(value: str) -> int:
    data = value.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")
