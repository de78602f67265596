"""Pictures in and out of files: reading, cropping, grids, PNG. NumPy and Pillow only.

In files and in this module pictures are uint8 (H, W, 3); models see float32 [-1, 1].
"""

import io
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageDraw, ImageFont

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 64_000_000  # 256 MB as RGBA, so that one hostile header cannot fill the memory

# The turn that undoes an EXIF orientation (1 is upright). Not ImageOps.exif_transpose, which
# also rewrites the EXIF block and fails on a damaged one around a good picture.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


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


def read_size(data_or_path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Reads a picture's header only: (height, width) as stored, before any EXIF turn.

    Takes and refuses what `read_rgb` does, but does not see damage behind the header.
    """
    with _open(data_or_path, max_pixels) as image:
        return image.height, image.width


def read_mode(data_or_path, max_pixels: int = MAX_PIXELS) -> str:
    """Reads a picture's header only: Pillow's name of its mode as stored, such as "RGB" or "L"."""
    with _open(data_or_path, max_pixels) as image:
        return image.mode


def plain_jpeg_size(data_or_path, max_pixels: int = MAX_PIXELS) -> tuple[int, int] | None:
    """(height, width) of a JPEG that is upright RGB as it stands; None for any other picture.

    Takes and refuses what `read_size` does.
    """
    with _open(data_or_path, max_pixels) as image:
        plain = image.format == "JPEG" and image.mode == "RGB" and _orientation(image) == 1
        return (image.height, image.width) if plain else None


def read_rgb(data_or_path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a JPEG, PNG or WebP picture of any colour mode.

    Transparency is laid on white, the EXIF orientation is applied, 16-bit grey is scaled to
    8 bits, and of an animation the first frame is taken.

    Args:
        data_or_path: the file's bytes, or a path.
        max_pixels: a picture whose header claims more is refused before it is decoded.
            Pillow's own limit (179 million) holds besides.

    Returns:
        uint8 (H, W, 3).

    Raises:
        ValueError: one line saying why the picture cannot be read, without the path.
    """
    with _open(data_or_path, max_pixels) as image:
        try:
            _scale_transparency(image)
            image.load()
            image = _flatten(image, _orientation(image))
        except Exception as error:  # on hostile bytes Pillow's decoders raise nearly anything
            raise ValueError(f"damaged picture: {_one_line(error)}") from error
    return np.array(image)


def _open(data_or_path, max_pixels: int) -> Image.Image:
    is_data = isinstance(data_or_path, (bytes, bytearray, memoryview))
    try:
        size = len(data_or_path) if is_data else os.stat(data_or_path).st_size
        source = io.BytesIO(data_or_path) if is_data else data_or_path
        image = Image.open(source, formats=FORMATS) if size else None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"too many pixels: {_one_line(error)}") from error
    except Image.UnidentifiedImageError as error:  # its text would repeat the path
        raise ValueError("not a JPEG, PNG or WebP picture, or its header is damaged.") from error
    except Exception as error:  # as in read_rgb: a header can be hostile too
        if getattr(error, "strerror", None):  # the system's, about the file, not Pillow's
            raise ValueError(f"cannot be opened: {error.strerror}.") from error
        raise ValueError(f"damaged header: {_one_line(error)}") from error
    if image is None:
        raise ValueError("the file is empty (0 bytes).")
    width, height = image.size
    if min(width, height) < 1 or width * height > max_pixels:
        image.close()
        problem = "too many pixels" if width * height > max_pixels else "no pixels"
        raise ValueError(f"{problem}: {width} x {height}, the limit is {max_pixels:,}.")
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF says nothing about the pixels
        return 1


def _scale_transparency(image: Image.Image) -> None:
    """Brings a PNG's transparent color to 8 bits: Pillow does so with the pixels alone.

    Of 16-bit RGB the pixels' high bytes are all that is left to compare with.
    """
    color = image.info.get("transparency")
    stored = image.tile[0][3] if image.format == "PNG" and color is not None else ""
    if stored in ("L;2", "L;4"):
        image.info["transparency"] = color * {"L;2": 85, "L;4": 17}[stored]  # 3 or 15 is white
    elif stored == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in color)


def _flatten(image: Image.Image, orientation: int) -> Image.Image:
    """Any mode to upright RGB on white."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's convert("RGB") would clip at 255
        grey = np.asarray(image)
        alpha = np.where(grey == image.info.get("transparency", -1), 0, 255).astype(np.uint8)
        grey = np.clip(np.rint(grey / 257.0), 0, 255).astype(np.uint8)  # 65535 / 257 = 255
        image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def rgb(image: np.ndarray) -> np.ndarray:
    """An array that a data set calls a picture as uint8 (H, W, 3).

    Args:
        image: uint8 (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); transparency is laid on white.

    Raises:
        ValueError: it is of another type or shape, or has no pixels.
    """
    image = np.asarray(image)
    grey = image.ndim == 2
    shaped = grey or (image.ndim == 3 and image.shape[2] in (1, 3, 4))
    if image.dtype != np.uint8 or not shaped or image.size == 0:
        raise ValueError(f"is {image.dtype} {image.shape}, not a picture of uint8 (H, W, 3).")
    if grey or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return image if image.shape[2] == 3 else np.array(_flatten(Image.fromarray(image), 1))


def crop_to_box(image: np.ndarray, box: Sequence[float]) -> np.ndarray:
    """The surroundings of a box, as StackGAN's released code crops the birds.

    Three quarters of the box's longer side in each direction from its center, cut off at the
    picture's edges: the object then fills at least 0.75 of the sides (arXiv:1612.03242, Sec. 4.1).

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
