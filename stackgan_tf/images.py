"""Pictures as arrays: values, cropping, grids, and into files. NumPy and Pillow only.

In files and in this module pictures are uint8 (H, W, 3); models see float32 [-1, 1].
"""

import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff")  # of names


def to_uint8(images) -> np.ndarray:
    """Turns floats in [-1, 1] into bytes, rounded and clipped.

    Args:
        images: float array or tensor of any shape.

    Returns:
        uint8 array of the same shape.

    Raises:
        ValueError: `images` are integers already, or hold NaN.
    """
    images = np.asarray(images)
    if images.dtype.kind in "biu":
        raise ValueError(f"images are {images.dtype}, not floats in [-1, 1].")
    images = images.astype(np.float32)  # bfloat16 and float16 cannot tell 256 values apart
    if np.isnan(images).any():
        raise ValueError("images hold NaN.")
    return np.clip(np.rint((images + 1.0) * 127.5), 0, 255).astype(np.uint8)


def to_float(images) -> np.ndarray:
    """Turns uint8 of any shape into float32 in [-1, 1]; `to_uint8` gives it back exactly.

    Raises:
        ValueError: `images` are not uint8.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(f"images are {images.dtype}, not uint8.")
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def crop_to_box(image: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """The surroundings of a box, as StackGAN's released code crops the birds.

    Three quarters of the box's longer side in each direction from its center, cut off at the
    picture's edges: the object's longer side is then two thirds of the picture's, or more where
    that is cut off ("greater than 0.75" in arXiv:1612.03242, Sec. 4.1, is not what the code does).

    Args:
        image: (H, W, ...), at least a pixel.
        box: (left, top, width, height) in pixels.

    Returns:
        a view of `image`; all of it where the box is none: empty, not finite or outside.
    """
    left, top, width, height = map(float, box)
    numbers = (left + width / 2, top + height / 2, 0.75 * max(width, height))
    if not np.isfinite(numbers).all() or min(width, height) <= 0:
        return image
    center_x, center_y, radius = map(int, numbers)
    cropped = image[max(0, center_y - radius):max(0, center_y + radius),
                    max(0, center_x - radius):max(0, center_x + radius)]
    return cropped if cropped.size else image


def center_square(image: np.ndarray) -> np.ndarray:
    """The largest centred square of an image: (H, W, 3) -> (S, S, 3), S = min(H, W)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def resize_square(image: np.ndarray, size: int) -> np.ndarray:
    """The centred square of an image, at a new size: uint8 (H, W, 3) -> uint8 (size, size, 3)."""
    square = np.ascontiguousarray(center_square(image))
    if square.shape[0] == size:
        return square.copy()
    # Pillow's bicubic widens its kernel when shrinking (antialias), unlike most libraries'.
    # Parmar et al., arXiv:2104.11222: aliased shrinking alone moves the FID by points.
    return np.array(Image.fromarray(square).resize((size, size), Image.Resampling.BICUBIC))


def shrink(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 (N, H, W, 3) -> (N, size, size, 3) by the mean of each block, for a network's eyes."""
    if images.shape[1] == size:
        return images
    return np.stack([np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BOX))
                     for image in images])


def grid(images: np.ndarray, columns: int, padding: int = 2) -> np.ndarray:
    """Lays pictures out row by row on white, with `padding` pixels between and around them.

    Args:
        images: uint8 (N, h, w, 3), N >= 1.
        columns: pictures a row; fewer when N is smaller. The last row may be short.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: no pictures, wrong shape or dtype, or `columns` below 1.
    """
    images = _checked(images)
    if columns < 1:
        raise ValueError(f"columns={columns}: a grid has at least 1.")
    count, height, width, _ = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    row_step, column_step = height + padding, width + padding
    shape = (rows * row_step + padding, columns * column_step + padding, 3)
    canvas = np.full(shape, 255, np.uint8)
    for i, image in enumerate(images):
        top = padding + i // columns * row_step
        left = padding + i % columns * column_step
        canvas[top : top + height, left : left + width] = image
    return canvas


def labelled_grid(
    rows: Sequence[np.ndarray], labels: Sequence[str], padding: int = 2, font_size: int = 14
) -> np.ndarray:
    """Lays out rows of pictures, each below its label.

    Args:
        rows: uint8 arrays (columns, h, w, 3). Rows of smaller pictures, as Stage-I's above
            Stage-II's, are enlarged to the largest (nearest pixel), so that columns align.
        labels: one text a row, wrapped at words to the width; '' draws none. What the font
            lacks is drawn as a box.

    Returns:
        uint8 (H, W, 3); the width of the longest row.

    Raises:
        ValueError: no rows, not one label a row, or a row that is not uint8 (N, h, w, 3).
    """
    if len(rows) == 0 or len(rows) != len(labels):
        raise ValueError(f"{len(rows)} rows and {len(labels)} labels; need one label a row.")
    rows = [_checked(row) for row in rows]
    height, width = max(row.shape[1] for row in rows), max(row.shape[2] for row in rows)
    strips = [grid(_enlarge(row, height, width), len(row), padding) for row in rows]
    full_width = max(strip.shape[1] for strip in strips)
    parts = []
    for strip, label in zip(strips, labels):
        parts.append(text_strip(label, full_width, padding, font_size))
        missing = ((0, 0), (0, full_width - strip.shape[1]), (0, 0))
        parts.append(np.pad(strip, missing, constant_values=255))
    return np.concatenate(parts, axis=0)


def contact_sheet(
    pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int = 6, font_size: int = 12
) -> np.ndarray:
    """Lays pictures of one size out row by row, each above its own wrapped caption.

    Args:
        pictures: uint8 (h, w, 3) each, at least one.
        captions: one text a picture. What the font lacks is drawn as a box.

    Returns:
        uint8 (H, W, 3).
    """
    pictures, padding = _checked(pictures), 6
    width = pictures.shape[2]
    cells = [np.concatenate([picture, text_strip(caption, width, 1, font_size)])
             for picture, caption in zip(pictures, captions, strict=True)]
    strips = []
    for first in range(0, len(cells), columns):
        row = cells[first:first + columns]
        height = max(cell.shape[0] for cell in row)
        row = [np.pad(cell, ((0, height - cell.shape[0]), (0, 0), (0, 0)), constant_values=255)
               for cell in row]
        strips.append(grid(np.stack(row), columns, padding))
    full_width = strips[0].shape[1]  # the last row may be short
    return np.concatenate([np.pad(strip, ((0, 0), (0, full_width - strip.shape[1]), (0, 0)),
                                  constant_values=255) for strip in strips])


def _checked(images) -> np.ndarray:
    images = np.asarray(images)
    shaped = images.ndim == 4 and images.shape[-1] == 3 and images.size > 0
    if not shaped or images.dtype != np.uint8:
        raise ValueError(f"need uint8 (N, h, w, 3), N >= 1; got {images.dtype} {images.shape}.")
    return images


def _enlarge(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest pixel, which hides nothing of what a Stage-I model has drawn."""
    y = np.arange(height) * images.shape[1] // height
    x = np.arange(width) * images.shape[2] // width
    return images[:, y][:, :, x]


def text_strip(text: str, width: int, padding: int, font_size: int) -> np.ndarray:
    """Black wrapped text on white: uint8 (H, width, 3); H = 0 without text."""
    font = ImageFont.load_default(size=font_size)
    lines = wrap(text, font, width - 2 * padding)
    line_height = round(1.35 * font_size)
    strip = Image.new("RGB", (width, line_height * len(lines)), "white")
    draw = ImageDraw.Draw(strip)
    for i, line in enumerate(lines):
        draw.text((padding, i * line_height), line, fill="black", font=font)
    return np.array(strip).reshape(line_height * len(lines), width, 3)


def wrap(text: str, font, width: int) -> list[str]:
    lines = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        # A word wider than the grid; letters are a pixel or more, so a long one is not measured.
        while len(word) > 1 and (len(word) > width or font.getlength(word) > width):
            cut = 1  # from the front: a long word's tail must not be measured again and again
            while cut < len(word) - 1 and font.getlength(word[:cut + 1]) <= width:
                cut += 1
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return lines


def encode_png(image: np.ndarray) -> bytes:
    """The PNG file of an image, uint8 (H, W, 3)."""
    buffer = io.BytesIO()
    # On generated pictures a tenth of the default's time, and smaller: they hold noise, in which
    # zlib's search for repeated strings finds nothing.
    Image.fromarray(_checked(np.asarray(image)[None])[0]).save(
        buffer, format="PNG", compress_type=zlib.Z_RLE)
    return buffer.getvalue()


def encode_jpeg(image: np.ndarray) -> bytes:
    """The JPEG file of an image, uint8 (H, W, 3): quality 95, colors at full resolution."""
    buffer = io.BytesIO()
    checked = _checked(np.asarray(image)[None])[0]
    Image.fromarray(checked).save(buffer, format="JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def save_png(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes an image, uint8 (H, W, 3), whole or not at all; makes missing folders."""
    write(path, encode_png(image))


def write(path: str | os.PathLike, data: bytes) -> None:
    """Writes a file whole or not at all; makes missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # same disk, so rename is atomic
    try:
        beside.write_bytes(data)
        os.replace(beside, path)
    except OSError as error:
        error.filename = str(path)  # a full disk names none
        raise
    finally:
        beside.unlink(missing_ok=True)
