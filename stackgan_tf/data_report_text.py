"""The report of a data set in words: a table for the terminal, and what looks wrong."""

import textwrap

from stackgan_tf.characters import CAPTION_LENGTH
from stackgan_tf.messages import printable

WIDTH = 80  # columns
FEW = 1000  # training pictures under which a warning is due


def table(report: dict) -> str:
    """The report as text, WIDTH columns wide."""
    names = ["train and test"] if report["without_split"] else list(report["splits"])
    splits = list(report["splits"].values())
    total = sum(split["pictures"] for split in splits)
    place = f" in {report['data_dir']}" if report["data_dir"] else ""
    lines = [f"{report['dataset']}{place}: {total:,} pictures", "",
             _row("(smallest ~ median ~ largest)", names)]
    lines += [_row(label, values) for label, values in _rows(splits) if any(values)]
    lines += _wrap([f"{name}: {why}" for name, why in report["missing"].items()])
    lines += _counted("Color modes of the files", {
        name: split["modes"] for name, split in report["splits"].items()})
    lines += _counted("Most frequent words, stop words (a, the, with, ...) apart", {
        name: (split["captions"] or {}).get("frequent_words") for name, split
        in report["splits"].items()})
    lines += _listed("Cannot be used", report, lambda split: [
        f"{one['file']}: {one['reason']}" for one in split["unreadable"]])
    lines += _listed("Exact copies", report, lambda split: [
        f"{copy} is {of}" for copy, of in split["copies_in_split"]])
    lines += _listed("Pictures of test that are in train", report, lambda split: [
        f"{copy} is {of}" for copy, of in split["copies_of_other_split"]])
    lines += _classes_and_both(report)
    found = report["warnings"]
    lines += ["", "What looks wrong" if found else "Nothing suspicious."]
    return "\n".join(lines + _wrap(found, "- "))


def _rows(splits):
    """(label, a text a split) of the table; a row without any text is left out."""
    yield "pictures", [_number(split["pictures"]) for split in splits]
    for label, key in (("  cannot be used", "unreadable"), ("  exact copies", "copies_in_split")):
        yield label, [_number(len(split[key])) for split in splits]
    for label, key in (("width", "width"), ("height", "height"), ("longer : shorter side",
                                                                  "long_to_short")):
        yield f"  {label}", [_spread(split[key]) for split in splits]
    for label, key in (("  shorter side under 64", "shorter_than_64"),
                       ("  shorter side under 256", "shorter_than_256"), ("  grey", "grey"),
                       ("  one flat color", "one_color")):
        yield label, [_number(split[key]) for split in splits]
    classes = [split["classes"] for split in splits]
    yield "classes", [_number(one["count"]) if one else "" for one in classes]
    yield "  pictures a class", [_spread(one["pictures"]) if one else "" for one in classes]
    captions = [split["captions"] for split in splits]
    for label, key in _CAPTION_ROWS:
        yield label, ["" if one is None else _spread(one[key]) if isinstance(one[key], list)
                      else _number(one[key]) for one in captions]
    embeddings = [split["embeddings"] for split in splits]
    yield "embeddings", [_number(one["count"]) if one else "" for one in embeddings]
    yield "  size", [" ".join(map(str, one["dims"])) if one else "" for one in embeddings]
    yield "  mean, standard deviation", [
        f"{one['mean']:.3g}, {one['std']:.3g}" if one and one["std"] is not None else ""
        for one in embeddings]
    yield "  not finite", [_number(one["not_finite"]) if one else "" for one in embeddings]


_CAPTION_ROWS = (
    ("captions", "count"), ("  a picture", "a_picture"), ("  words", "words"),
    ("  characters", "characters"), ("  longer than is read (201)", "too_long"),
    ("  with unknown characters", "outside_alphabet"), ("  empty", "empty"),
    ("  duplicates", "duplicates"),
    ("  ... but for case, marks, space", "duplicates_but_for_case_punctuation_space"),
    ("  ... but for stop words", "duplicates_but_for_stop_words"),
    ("  repeated at one picture", "repeated_in_picture"))


def _row(label, values):
    return f"{label:34}" + "".join(f"{value:>23}" for value in values)


def _number(value):
    return f"{value:,}"


def _spread(values):
    """min - median - max."""
    low, middle, high = (f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in values)
    return low if low == high else f"{low} ~ {middle} ~ {high}"


def _clip(word):
    return word if len(word) <= 24 else word[:21] + "..."


def _counted(title, counts):
    """{split: {word: how often}} as a section."""
    lines = [f"{name}: " + ", ".join(f"{_clip(word)} {n:,}"
                                     for word, n in one.items())
             for name, one in counts.items() if one]
    return ["", title, *_wrap(lines)] if lines else []


def _classes_and_both(report):
    lines = []
    for name, split in report["splits"].items():
        classes = split["classes"]
        if classes and classes["pictures"][0] != classes["pictures"][2]:
            low, _, high = classes["pictures"]
            lines.append(f"{name}: smallest class {classes['smallest']}: {low:,}, largest "
                         f"{classes['largest']}: {high:,}")
    both = report["both_splits"]
    if both:
        if both["classes_in_both"] is not None:
            lines.append(f"classes in both: {both['classes_in_both'] or 'none, as in the paper'}")
        lines += [f"test pictures that are in train: {both['test_pictures_in_train']:,}",
                  f"test captions that are in train: {both['test_captions_in_train']:,}"]
    return ["", "Classes and splits", *_wrap(lines)] if lines else []


def _listed(title, report, lines_of, most=12):
    """What `lines_of` gives of each split as a section; only the first ones if they are many."""
    lines = [f"{name}: {line}" for name, split in report["splits"].items()
             for line in lines_of(split)]
    if len(lines) > most:
        lines[most:] = [f"... and {len(lines) - most:,} more: see report.json"]
    return ["", title, *_wrap(lines)] if lines else []


def _wrap(lines, bullet="  "):
    return [part for line in lines for part in textwrap.wrap(
        printable(line), WIDTH, initial_indent=bullet, subsequent_indent="  ",
        break_on_hyphens=False)]


def warnings(report: dict, max_unreadable: int) -> list[str]:
    """What looks wrong, each with its remedy; `report` is report.json's."""
    found = [line for name, split in report["splits"].items()
             for line in _split_warnings(name, split, max_unreadable)]
    both = report["both_splits"]
    leaks = both["test_pictures_in_train"] if both else 0
    if leaks:
        found.append(f"test: {leaks:,} {'picture is' if leaks == 1 else 'pictures are'} in train "
                     "too: a score on them measures memory. Leave them in one split.")
    if report["without_split"]:
        found.append("train and test are the same pictures: a score measures memory. Mark some "
                     'lines "split": "test" and the others "train".')
    return found


def _split_warnings(name, split, max_unreadable):
    def several(count, what, plural=None):
        return f"{name}: {count:,} {what if count == 1 else plural or what + 's'}"

    bad = len(split["unreadable"])
    if bad:
        limit = ("training skips such pictures, but refuses such lines" if bad <= max_unreadable
                 else f"more than the --max_unreadable={max_unreadable} that training puts up with")
        yield (f"{several(bad, 'picture or line', 'pictures or lines')} cannot be used, see above: "
               f"repair or remove ({limit}).")
    if split["stopped_at"]:
        yield f"{name}: reading stopped before the end: {split['stopped_at']}"
    if 0 < split["pictures"] < FEW and name == "train":
        yield (f"{several(split['pictures'], 'picture')} in all: so few are learned by heart. The "
               "paper's smallest set has 7,034; collect more.")
    yield from _picture_warnings(several, split)
    classes = split["classes"]
    if classes and classes["count"] == 1:
        yield (f"{name}: all pictures are of one class, so the discriminator's wrong captions come "
               'from that class too. Name the kinds in "class", or leave it out.')
    yield from _caption_warnings(several, split)
    yield from _embedding_warnings(several, split["embeddings"])


def _picture_warnings(several, split):
    small, medium = split["shorter_than_64"], split["shorter_than_256"]
    if small:
        yield (f"{several(small, 'picture')} smaller than 64 on the shorter side: blurred even in "
               "Stage-I. Find larger ones or leave them out.")
    if medium > small:
        yield (f"{several(medium - small, 'picture')} of 64 to 255 on the shorter side: blurred in "
               "Stage-II. Find larger ones, or train Stage-II with --image_size=128.")
    if split["more_than_2_to_1"]:
        yield (f"{several(split['more_than_2_to_1'], 'picture')} longer than 2:1: the centre "
               "square shows less than half. Crop to what the caption says.")
    if split["one_color"]:
        yield (f"{several(split['one_color'], 'picture')} of one flat color: placeholders? Leave "
               "them out.")
    if split["copies_in_split"]:
        copies = several(len(split["copies_in_split"]), "picture is an exact copy",
                         "pictures are exact copies")
        yield f"{copies} of another one: keep one of each, with the captions of all."


def _caption_warnings(several, split):
    captions = split["captions"]
    if captions is None:
        if not split["embeddings"]:
            yield (f"{several(split['pictures'], 'picture')} and no caption: write some, or train "
                   "without text: --embedding_dim=0.")
        return
    if captions["pictures_without"]:
        yield (f"{several(captions['pictures_without'], 'picture')} without a caption: give each "
               "one, or train without text: --embedding_dim=0.")
    if captions["empty"]:
        yield f"{several(captions['empty'], 'empty caption')}: write or remove them."
    if captions["too_long"]:
        yield (f"{several(captions['too_long'], 'caption')} longer than the {CAPTION_LENGTH} "
               "characters that the text encoder reads: shorten, what can be seen first.")
    if captions["outside_alphabet"]:
        signs = " ".join(c if c.isprintable() and not c.isspace() else ascii(c)[1:-1]
                         for c in captions["unknown_characters"])
        yield (f"{several(captions['outside_alphabet'], 'caption')} with characters unknown to the "
               f"built-in text encoder, such as {signs} : it reads blanks. Spell them in ASCII, or "
               "give another encoder with --text_encoder=PATH.")
    if captions["repeated_in_picture"]:
        yield (f"{several(captions['repeated_in_picture'], 'caption')} repeated at the same "
               "picture: remove the repetition.")
    most = captions["most_repeated"]
    if most and most["times"] > max(2, split["pictures"] // 10):
        yield (f"{several(most['times'], 'caption')} read {most['caption'][:60]!r}: that cannot "
               "tell pictures apart. Say what differs.")


def _embedding_warnings(several, embeddings):
    if not embeddings:
        return
    if embeddings["not_finite"]:
        yield (f"{several(embeddings['not_finite'], 'embedding')} with NaN or infinity: training "
               "would fail. Make them again.")
    if len(embeddings["dims"]) > 1:
        yield (f"{several(embeddings['count'], 'embedding')} of different sizes, "
               f"{embeddings['dims']}: make them again with one encoder.")
    elif not 0.3 < embeddings["std"] < 3:
        yield (f"{several(embeddings['count'], 'embedding')} with a standard deviation of "
               f"{embeddings['std']:.2g}: the networks learn captions best near 1. Scale them.")
