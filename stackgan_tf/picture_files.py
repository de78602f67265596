"""A picture's file, wherever it comes from, to upright RGB: uint8 (H, W, 3)."""

import io
import os

import numpy as np
from PIL import ExifTags, Image

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
