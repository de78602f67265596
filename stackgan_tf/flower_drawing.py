"""Draws and describes the flowers of the built-in data set, from (seed, index) alone.

Made so that the whole of StackGAN can be tried without a download: five attributes that are
readable at 64x64 (what Stage-I has to get right), and veins, stamens, grain and shading that
only exist at 256x256 (what Stage-II has to add). A class is a (petal shape, petal color) pair;
test classes pair shapes and colors that training shows only apart, as CUB and Oxford-102
do in the splits of Reed et al. 2016 (arXiv:1605.05396).
"""

import dataclasses
import itertools

import numpy as np
from PIL import Image

IMAGE_SIZE = 256
CAPTIONS_PER_IMAGE = 10

# Base colors, 0-255. Any two of one attribute are over 80 apart (Euclidean), shading moves them
# by less; that is why there is no lavender (between pink and purple) and no lime.
PETAL_COLORS = {
    "red": (222, 28, 26), "orange": (250, 128, 14), "yellow": (253, 222, 34),
    "white": (250, 249, 247), "pink": (252, 164, 200), "magenta": (222, 16, 150),
    "purple": (112, 46, 182), "blue": (34, 82, 222), "turquoise": (18, 186, 172),
    "maroon": (94, 12, 36),
}
PETAL_SHAPES = ("rounded", "pointed", "strap")
PETAL_COUNTS = tuple(range(4, 13))
CENTER_COLORS = {
    "yellow": (246, 200, 36), "white": (244, 240, 226), "green": (112, 164, 40),
    "brown": (98, 56, 24), "red": (196, 34, 30),
}
BACKGROUNDS = {
    "foliage": (62, 108, 44), "sky": (146, 196, 238), "soil": (42, 32, 27),
    "paper": (234, 232, 225), "sand": (208, 178, 130),
}
# Attribute -> names of its values, in the order of every index array of this file.
ATTRIBUTES = {
    "petal_color": tuple(PETAL_COLORS),
    "petal_shape": PETAL_SHAPES,
    "petal_count": tuple(str(count) for count in PETAL_COUNTS),
    "center_color": tuple(CENTER_COLORS),
    "background": tuple(BACKGROUNDS),
}
# A gap between petals must survive 64x64, so the shape limits the count; and, as among real
# flowers, many petals are narrow ones.
_COUNTS_OF_SHAPE = {"rounded": (4, 8), "pointed": (4, 8), "strap": (8, 12)}

CLASSES = tuple(itertools.product(PETAL_SHAPES, PETAL_COLORS))
CLASS_NAMES = tuple(f"{shape}_{color}" for shape, color in CLASSES)
# Two per shape, no color twice: yellow, white, pink and maroon are always seen in training.
TEST_CLASS_NAMES = (
    "rounded_orange", "rounded_purple", "pointed_red", "pointed_turquoise",
    "strap_magenta", "strap_blue",
)


@dataclasses.dataclass(frozen=True)
class Flower:
    """One example. image: uint8 (256, 256, 3); mentions: bool (10, 5), what each caption names."""

    image: np.ndarray
    captions: tuple[str, ...]
    mentions: np.ndarray
    attributes: dict[str, int]
    label: int


def make_flower(seed: int, index: int) -> Flower:
    """Example `index` of the endless sequence `seed`; its class is index mod 30.

    Indices below 30 n are the same for every size of data set, so a small one is a part of a
    large one. Attributes, picture and captions have their own random streams: a change to the
    grammar leaves the pictures as they are.
    """
    streams = [np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, index, stream))))
               for stream in range(3)]
    label = index % len(CLASSES)
    attributes = sample_attributes(label, streams[0])
    captions, mentions = write_captions(attributes, streams[2])
    return Flower(draw_image(attributes, streams[1]), captions, mentions, attributes, label)


def sample_attributes(label: int, rng: np.random.Generator) -> dict[str, int]:
    """Value indices for a flower of class `label`; center and background contrast with petals."""
    shape, color = CLASSES[label]
    low, high = _COUNTS_OF_SHAPE[shape]

    def contrasting(choices):
        petal = np.array(PETAL_COLORS[color], float)
        return rng.choice([i for i, other in enumerate(choices.values())
                           if np.linalg.norm(petal - other) > 80])

    return {
        "petal_color": ATTRIBUTES["petal_color"].index(color),
        "petal_shape": PETAL_SHAPES.index(shape),
        "petal_count": PETAL_COUNTS.index(rng.integers(low, high + 1)),
        "center_color": int(contrasting(CENTER_COLORS)),
        "background": int(contrasting(BACKGROUNDS)),
    }


# ------------------------------------------------------------------------------- the picture


def draw_image(attributes: dict[str, int], rng: np.random.Generator) -> np.ndarray:
    """Draws value indices (any combination) as uint8 (256, 256, 3). About 15 ms."""
    values = {name: ATTRIBUTES[name][i] for name, i in attributes.items()}
    canvas = _background(values["background"], rng)
    x, y = np.array([0.5, 0.455]) * IMAGE_SIZE + rng.uniform(-4, 4, 2)
    radius = IMAGE_SIZE * rng.uniform(0.385, 0.42)
    _stem_and_leaf(canvas, (x, y), radius, rng)

    count = int(values["petal_count"])
    outline = _petal_outline(values["petal_shape"], count)
    color = _jitter(PETAL_COLORS[values["petal_color"]], rng)
    veins = 2 if values["petal_shape"] == "strap" else 9
    # The first petal points up: a small network learns a petal's shape in minutes when it need
    # not learn every turn of it.
    first = -np.pi / 2 + rng.uniform(-0.06, 0.06)
    for petal in range(count):
        angle = first + 2 * np.pi * (petal + rng.uniform(-0.03, 0.03)) / count
        length = radius * rng.uniform(0.95, 1.03)
        _petal(canvas, (x, y), angle, length, outline, color * rng.uniform(0.95, 1.03), veins)
    _center(canvas, (x, y), 0.23 * radius, _jitter(CENTER_COLORS[values["center_color"]], rng), rng)
    canvas += rng.normal(0, 2, (IMAGE_SIZE, IMAGE_SIZE, 1)).astype(np.float32)  # film grain
    return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)


def _jitter(color, rng):
    return np.clip(np.float32(color) + rng.normal(0, 5, 3), 0, 255).astype(np.float32)


def _blend(canvas, alpha, color):
    """Paints `color` (..., 3) over `canvas` (H, W, 3), in place, where `alpha` (H, W) is 1."""
    canvas += alpha[..., None] * (color - canvas)


def _box(center, reach, low=0, high=IMAGE_SIZE):
    """The square within `reach` pixels of center (x, y), cut to the corners `low` and `high`: its
    slices, and dx, dy (H, W)."""
    low = np.maximum(np.floor(np.maximum(np.subtract(center, reach), low)), 0).astype(int)
    high = np.minimum(np.ceil(np.minimum(np.add(center, reach), high)), IMAGE_SIZE).astype(int)
    dx = np.arange(low[0], high[0], dtype=np.float32)[None, :] - np.float32(center[0])
    dy = np.arange(low[1], high[1], dtype=np.float32)[:, None] - np.float32(center[1])
    return (slice(low[1], high[1]), slice(low[0], high[0])), dx, dy


def _petal_outline(shape, count):
    """Half widths (257,) from base to tip, as fractions of the petal's length."""
    u = np.linspace(0, 1, 257)
    room = np.tan(np.pi / count)  # half width at which neighbors touch, per unit of distance
    if shape == "rounded":
        top, width = 0.62, min(0.46, 0.72 * room)
        blade = np.sqrt(1 - np.clip((u - top) / (1 - top), 0, 1) ** 2)
    elif shape == "pointed":
        top, width = 0.38, min(0.29, 0.46 * room)
        blade = 1 - np.clip((u - top) / (1 - top), 0, 1) ** 1.35
    else:
        top, width = 0.88, 0.12
        blade = np.sqrt(1 - np.clip((u - top) / (1 - top), 0, 1) ** 2)
    base = 0.6 if shape == "strap" else 0.22
    return width * blade * (base + (1 - base) * np.sin(np.pi / 2 * np.minimum(u / top, 1)))


def _petal(canvas, origin, angle, length, half_widths, color, veins):
    """One petal with its shadow, edge, two-sided shading and veins, over what is there."""
    axis = np.array([np.cos(angle), np.sin(angle)], np.float32)
    reach = length * (0.5 + half_widths.max() * 0.75) + 6
    # What is painted, shadow and all, lies in this rectangle along the axis.
    side = (half_widths.max() * length + 8) * np.array([-axis[1], axis[0]])
    corners = [np.add(origin, u * axis) + v * side for u in (-7, length + 4) for v in (-1, 1)]
    box, dx, dy = _box(np.add(origin, axis * length / 2), reach,
                       np.min(corners, 0), np.max(corners, 0))
    dx, dy = dx + axis[0] * length / 2, dy + axis[1] * length / 2
    u = (dx * axis[0] + dy * axis[1]) / np.float32(length)  # 0 at the base, 1 at the tip
    v = dy * axis[0] - dx * axis[1]  # pixels from the midrib
    row = np.clip(u * 256 + 0.5, 0, 256).astype(np.int16)
    half_width = (half_widths * length).astype(np.float32)[row]
    # Steep parts of the outline are nearer than measured across: divide by the secant.
    secant = np.sqrt(1 + (np.gradient(half_widths) * 256) ** 2).astype(np.float32)
    secant = np.where(half_width > np.abs(v), secant[row], np.minimum(secant, 1.5)[row])
    inside = (half_width - np.abs(v)) / secant  # pixels to the edge
    inside = np.minimum(inside, (1 - np.maximum(u, 0.5)) * 2 * length)
    inside = np.minimum(inside, u * length + 1)

    shadow = np.clip(1 + inside / 5, 0, 1)
    canvas[box] *= (1 - 0.38 * shadow * shadow)[..., None]
    across = np.clip(v / (half_width + 1), -1, 1)
    light = 0.6 * axis[1] - 0.8 * axis[0]  # the lamp is at the upper left
    fan = 0.5 + 0.5 * np.cos(np.float32(np.pi * veins) * across)
    fan *= fan
    shade = (0.90 + 0.10 * light * across - 0.06 * (1 - np.abs(across)) ** 4
             + 0.26 * (np.clip(u, 0, 1) - 0.5) - 0.17 * fan * fan * np.clip(1.15 - u, 0, 1)
             - 0.20 * np.clip(1 - inside / 1.6, 0, 1))
    shine = 26 * np.clip(1 - 4 * (across * light - 0.35) ** 2, 0, 1) * np.clip(u, 0, 1)
    _blend(canvas[box], np.clip(inside + 0.5, 0, 1), shade[..., None] * color + shine[..., None])


def _center(canvas, origin, radius, color, rng):
    """A domed disc of seeds in two spirals, and a ring of stamens around it."""
    box, dx, dy = _box(origin, 1.9 * radius)
    view = canvas[box]
    distance, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    view *= (1 - 0.45 * np.clip(1.75 - distance / radius, 0, 1) ** 2)[..., None]

    count = 22
    turn = (angle / (2 * np.pi) + 0.5) * count + rng.uniform()
    stamen = np.floor(turn).astype(int) % count
    sideways = (turn - np.floor(turn) - 0.5) * (2 * np.pi / count) * distance  # pixels
    tips = (radius * rng.uniform(1.22, 1.58, count)).astype(np.float32)[stamen]
    thread = np.clip(1.1 - np.abs(sideways), 0, 1) * (distance < tips)
    _blend(view, 0.8 * thread, color * 0.75 + 60)
    anther = np.hypot(sideways, distance - tips)
    _blend(view, np.clip(2.9 - anther, 0, 1), color * np.float32(0.82))
    _blend(view, np.clip(1.6 - np.hypot(sideways + 0.7, distance - tips + 0.7), 0, 1), color + 30)

    spiral = 9 * np.log(distance / radius + 0.12)
    seeds = np.cos(13 * angle + spiral) * np.cos(8 * angle - 1.6 * spiral)
    dome = 1.08 - 0.40 * (distance / radius) ** 3 - 0.10 * (dx + dy) / radius
    shade = dome * (0.93 + 0.17 * seeds)
    _blend(view, np.clip(radius - distance + 0.5, 0, 1), shade[..., None] * color)


def _stem_and_leaf(canvas, origin, radius, rng):
    """A bent stem from the flower to the lower edge, with one leaf."""
    green = _jitter((86, 146, 52), rng)
    x, y = origin
    bend = rng.uniform(-8, 8)
    box = (slice(int(y), IMAGE_SIZE), slice(int(x) - 14, int(x) + 15))  # 5 pixels beside it
    rows = np.arange(IMAGE_SIZE, dtype=np.float32)[box[0], None]
    columns = np.arange(IMAGE_SIZE, dtype=np.float32)[None, box[1]]
    down = np.clip((rows - y) / (IMAGE_SIZE - y), 0, 1)
    offset = columns - (x + bend * down * down)
    leaf_outline = _petal_outline("pointed", 6)
    side = rng.choice([-1, 1])
    root = (x + 0.6 * bend, IMAGE_SIZE + 2)
    _petal(canvas, root, -np.pi / 2 + side * rng.uniform(0.85, 1.05), 0.95 * radius,
           leaf_outline, green * 0.9, 5)
    alpha = np.clip(5 - np.abs(offset), 0, 1) * (rows > y)
    _blend(canvas[box], alpha, green * (0.95 - 0.05 * offset)[..., None])


def _noise(cells, rng):
    """Smooth noise (256, 256), about standard normal, with `cells` bumps along a side."""
    grid = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC))


def _background(kind, rng):
    """float32 (256, 256, 3)."""
    height = np.linspace(1, -1, IMAGE_SIZE, dtype=np.float32)[:, None]  # 1 at the top
    color = _jitter(BACKGROUNDS[kind], rng)
    if kind == "foliage":  # out of focus, with spots of light
        tone = 20 * _noise(7, rng) + 10 * _noise(20, rng)
        tint = (0.8, 1.0, 0.5)
        tone = tone + 26 * np.clip(_noise(11, rng) - 0.9, 0, 0.8)
    elif kind == "sky":  # clouds, paler towards the horizon
        cloud = np.clip(0.7 * _noise(4, rng) + 0.35 * _noise(12, rng) + 0.1 * _noise(40, rng), 0, 2)
        tone, tint = 30 * cloud - 16 * height, (1.3, 0.8, 0.25)
    elif kind == "soil":  # crumbs
        tone, tint = 6 * _noise(12, rng) + 7 * _noise(48, rng) + 6 * _noise(128, rng), (1, 0.9, 0.8)
    elif kind == "paper":  # fibers, a soft vignette
        fibers = _noise(128, rng) + np.roll(_noise(90, rng), 3, axis=1)
        tone = 3 * fibers - 10 * (height ** 2 + height.T ** 2)
        tint = (1, 1, 1.05)
    else:  # ripples of sand, bent by slow noise
        ripples = np.sin(22 * height + 1.3 * _noise(4, rng))
        tone, tint = 9 * ripples + 7 * _noise(128, rng) + 4 * _noise(6, rng), (1, 0.95, 0.85)
    return color + tone[..., None].astype(np.float32) * np.float32(tint)


# ------------------------------------------------------------------------------ the captions

# A word belongs to one value of its attribute only, so a caption can be read back.
WORDS = {
    "petal_color": {
        "red": ("red", "scarlet"), "orange": ("orange", "tangerine"),
        "yellow": ("yellow", "lemon"), "white": ("white", "snowy"), "pink": ("pink", "rosy"),
        "magenta": ("magenta", "fuchsia"), "purple": ("purple", "violet"),
        "blue": ("blue", "cobalt"), "turquoise": ("turquoise", "teal"),
        "maroon": ("maroon", "burgundy"),
    },
    "petal_shape": {
        "rounded": ("rounded", "round", "broad"), "pointed": ("pointed", "sharp", "spiky"),
        "strap": ("strap-like", "slender", "narrow"),
    },
    "petal_count": {
        "4": ("four", "4"), "5": ("five", "5"), "6": ("six", "6"), "7": ("seven", "7"),
        "8": ("eight", "8"), "9": ("nine", "9"), "10": ("ten", "10"), "11": ("eleven", "11"),
        "12": ("twelve", "12", "a dozen"),
    },
    "center_color": {
        "yellow": ("yellow", "golden"), "white": ("white", "creamy"), "green": ("green", "lime"),
        "brown": ("brown", "chocolate"), "red": ("red", "crimson"),
    },
    "background": {
        "foliage": ("against green foliage", "in front of blurred green leaves",
                    "in a leafy garden", "on a green background"),
        "sky": ("against a blue sky", "under a cloudy sky", "in front of a pale blue sky",
                "on a light blue background"),
        "soil": ("against dark soil", "on a black background", "above the dark earth",
                 "in front of black soil"),
        "paper": ("on white paper", "on a plain white background", "against a white wall",
                  "in front of a pale wall"),
        "sand": ("on rippled sand", "against tan sand", "on a sandy beach",
                 "on a beige background"),
    },
}
# How often a caption names each attribute, in the order of ATTRIBUTES.
_NAMED_RATES = (0.60, 0.58, 0.54, 0.60, 0.54)


def write_captions(attributes: dict[str, int], rng: np.random.Generator
                   ) -> tuple[tuple[str, ...], np.ndarray]:
    """Ten captions and mentions, bool (10, 5): the attributes that each caption names."""
    mentions = rng.random((CAPTIONS_PER_IMAGE, len(ATTRIBUTES))) < _NAMED_RATES
    mentions[~mentions[:, :2].any(axis=1), 0] = True  # something has to be said of the petals
    captions = []
    for named in mentions:
        words = {name: str(rng.choice(WORDS[name][ATTRIBUTES[name][i]])) if is_named else ""
                 for is_named, (name, i) in zip(named, attributes.items())}
        captions.append(_caption(words, rng))
    return tuple(captions), mentions


def _caption(words, rng):
    """One caption, lower case, from a word for each attribute ("" for one left out)."""
    def pick(*choices):
        return str(rng.choice(choices))

    def join(*parts):
        return " ".join(part for part in parts if part)

    color, shape, count, center, background = words.values()
    color = join(pick("bright", "vivid", "lovely", "", "", "", "", ""), color) if color else ""
    detail = pick("with thin veins", "with fine lines", "with delicate veins", "", "", "", "", "")
    if center:
        center = pick(f"a {center} center", f"a dotted {center} center", f"a bright {center} disc",
                      f"a {center} middle", f"a center that is {center}")
        link = pick("and", "around", "surrounding")
    else:
        link, center = pick("and", ""), pick("many small stamens", "a green stem")
        center = center if link else ""  # true of every flower, so it tells nothing

    style = pick("noun", "noun", "of color", "are")
    if style == "are":
        adjectives = " and ".join(part for part in (shape, color) if part)
        subject = join("the", count.removeprefix("a "), "petals",
                       pick("of this flower", "on this flower", "of the flower"))
        text = join(subject, "are", adjectives, detail,
                    {"and": "with"}.get(link, link), center)
    elif style == "of color" and color:
        head = pick(f"this {color} flower has", f"the {color} flower has")
        text = join(head, count, shape, "petals", detail, link, center)
    else:
        head = pick("this flower has", "the flower has", "a flower with", "a blossom with",
                    "this plant has", "this is a flower with")
        pair = (shape, color) if rng.random() < 0.7 else (color, shape)
        text = join(head, count, *pair, "petals", detail, link, center)
    if background and rng.random() < 0.15:
        return f"{background}, {text}"
    return text + pick(" ", ", ") + background if background else text
