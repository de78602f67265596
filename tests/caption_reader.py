"""Reads drawn_flowers' captions by their words, not knowing how they were made."""

import re

from stackgan_tf.flower_drawing import ATTRIBUTES, WORDS

_ANY_COLOR = "|".join(sorted({word for name in ("petal_color", "center_color")
                              for words in WORDS[name].values() for word in words}))
_MIDDLE = r"(?:center|centre|middle|disc|disk|core|eye)s?"
_CENTER = re.compile(rf"\b(?:({_ANY_COLOR})(?: (?!petal|flower)[a-z]+)? {_MIDDLE}"
                     rf"|{_MIDDLE} (?:that |which )?(?:is|are|in|of|looks) (?:a )?"
                     rf"(?:(?:bright|vivid|dark|light|pale) )?({_ANY_COLOR}))\b")
_SCENES = {
    "foliage": r"(?:green )?(?:foliage|leaves|leafy|garden|grass|greenery)|green back\w+",
    "sky": r"(?:blue )?sk(?:y|ies)|blue back\w+",
    "soil": r"(?:(?:dark|black|brown) )?(?:soil|earth)|(?:dark|black) back\w+",
    "paper": r"(?:white )?(?:paper|wall)|white back\w+",
    "sand": r"(?:tan )?(?:sand|sandy|beach)|(?:beige|tan) back\w+",
}
_SCENES = {value: re.compile(rf"\b(?:{pattern})\b") for value, pattern in _SCENES.items()}


def named_attributes(caption: str) -> dict[str, int]:
    """Reads a caption (also a user's own): {attribute: value index} for what it names.

    The background and the center are read first and taken out: the color left is the petals'.
    """
    found = {}
    text = re.sub(r"\b(?:green )?(?:stem|stalk|leaf)\b", " ", caption.lower())
    for value, pattern in _SCENES.items():
        if pattern.search(text):
            found.setdefault("background", ATTRIBUTES["background"].index(value))
            text = pattern.sub(" ", text)
    center = _CENTER.search(text)
    if center:
        _find("center_color", center[1] or center[2], found)
        text = _CENTER.sub(" ", text)
    for name in ("petal_color", "petal_shape", "petal_count"):
        _find(name, text, found)
    return {name: found[name] for name in ATTRIBUTES if name in found}


def _find(name, text, found):
    """Adds the value of attribute `name` whose word comes first in `text`, if any."""
    hits = [(match.start(), ATTRIBUTES[name].index(value))
            for value, words in WORDS[name].items() for word in words
            if (match := re.search(rf"\b{word.removeprefix('a ')}\b", text))]
    if hits:
        found[name] = min(hits)[1]
