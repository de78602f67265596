"""Reading pictures of every colour mode, and refusing hostile ones."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from stackgan_tf import picture_files

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)


def encoded(image, file_format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def png(width, height, bits, kind, pixels, transparent=b""):
    """A PNG of these bytes; kind 0 is grey, 2 RGB."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    color = chunk(b"tRNS", transparent) if transparent else b""
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + color + body + chunk(b"IEND", b"")


def png_claiming(width, height):
    """A PNG of 100 bytes whose header claims any size."""
    return png(width, height, 8, 2, b"\0" * 100)


def near(pixel, color, tolerance=6):
    return np.abs(np.asarray(pixel, int) - color).max() <= tolerance


# Colour modes


def palette_with_transparency():
    image = Image.new("P", (4, 4), 1)
    image.putpalette([*RED, *GREEN, *BLUE])
    image.putpixel((0, 0), 2)
    return encoded(image, "PNG", transparency=1)  # green is transparent


def sixteen_bit(value, **options):
    return encoded(Image.fromarray(np.full((4, 4), value, np.uint16)), "PNG", **options)


MODES = {  # name: (file, colour of the pixel at the bottom right)
    "cmyk": (encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG"), RED),
    "cmyk black": (encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "JPEG"), (0, 0, 0)),
    "palette": (encoded(Image.new("RGB", (4, 4), BLUE).quantize(4), "PNG"), BLUE),
    "palette, transparent": (palette_with_transparency(), (255, 255, 255)),
    "grey": (encoded(Image.new("L", (4, 4), 77), "PNG"), (77, 77, 77)),
    "grey jpeg": (encoded(Image.new("L", (16, 16), 77), "JPEG"), (77, 77, 77)),
    "1-bit white": (encoded(Image.new("1", (4, 4), 1), "PNG"), (255, 255, 255)),
    "1-bit black": (encoded(Image.new("1", (4, 4), 0), "PNG"), (0, 0, 0)),
    "16-bit middle": (sixteen_bit(32768), (128, 128, 128)),
    "16-bit white": (sixteen_bit(65535), (255, 255, 255)),
    "16-bit dark": (sixteen_bit(257), (1, 1, 1)),
    "16-bit transparent": (sixteen_bit(300, transparency=300), (255, 255, 255)),
    "grey half transparent": (encoded(Image.new("LA", (4, 4), (0, 128)), "PNG"), (127, 127, 127)),
    "rgb half transparent": (
        encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 128)), "PNG"),
        (255, 127, 127),
    ),
    "webp": (encoded(Image.new("RGB", (16, 16), GREEN), "WEBP", lossless=True), GREEN),
    "webp transparent": (
        encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 0)), "WEBP", lossless=True),
        (255, 255, 255),
    ),
}


@pytest.mark.parametrize("name", MODES)
def test_every_mode_becomes_rgb_on_white(name):
    data, color = MODES[name]
    image = picture_files.read_rgb(data)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert near(image[-1, -1], color, tolerance=3 if "jpeg" in name or "cmyk" in name else 1)


@pytest.mark.parametrize("bits, row, greys", [
    (2, b"\x1b", [0, 85, 170, 255]),  # 0, 1, 2, 3
    (4, b"\x01\x7f", [0, 17, 119, 255]),  # 0, 1, 7, 15
])
@pytest.mark.parametrize("place", range(4))
def test_a_transparent_grey_of_few_bits(bits, row, greys, place):
    transparent = struct.pack(">H", greys[place] * (2**bits - 1) // 255)
    image = picture_files.read_rgb(png(4, 1, bits, 0, b"\0" + row, transparent))
    assert image[0, :, 0].tolist() == [*greys[:place], 255, *greys[place + 1:]]


def test_a_transparent_color_of_16_bits():
    """The second pixel has the color's low bytes for high ones, and is opaque."""
    color = struct.pack(">HHH", 0x1234, 0x56FF, 0x9A01)
    other = struct.pack(">HHH", 0x3400, 0xFF00, 0x0100)
    image = picture_files.read_rgb(png(2, 1, 16, 2, b"\0" + color + other, color))
    assert image[0].tolist() == [[255, 255, 255], [0x34, 0xFF, 0x01]]


def test_opaque_pixels_of_a_transparent_palette_keep_their_colour():
    assert tuple(picture_files.read_rgb(palette_with_transparency())[0, 0]) == BLUE


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, GREEN)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert tuple(picture_files.read_rgb(data)[0, 0]) == RED


# What a viewer shows at the corners (top left, top right, bottom left, bottom right) when the
# stored corners are red, green, blue, yellow. EXIF 2.3, tag 0x0112: 6 is "row 0 is the right
# side, column 0 is the top", hence a quarter turn clockwise.
TURNED = {
    1: (RED, GREEN, BLUE, YELLOW),
    2: (GREEN, RED, YELLOW, BLUE),
    3: (YELLOW, BLUE, GREEN, RED),
    4: (BLUE, YELLOW, RED, GREEN),
    5: (RED, BLUE, GREEN, YELLOW),
    6: (BLUE, RED, YELLOW, GREEN),
    7: (YELLOW, GREEN, BLUE, RED),
    8: (GREEN, YELLOW, RED, BLUE),
    99: (RED, GREEN, BLUE, YELLOW),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_turns_the_corners(orientation, file_format):
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:16, :32], pixels[:16, 32:], pixels[16:, :32], pixels[16:, 32:] = (
        RED,
        GREEN,
        BLUE,
        YELLOW,
    )
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if file_format == "JPEG" else {"lossless": True}
    data = encoded(Image.fromarray(pixels), file_format, exif=exif, **options)
    image = picture_files.read_rgb(data)
    assert image.shape == ((64, 32, 3) if orientation in (5, 6, 7, 8) else (32, 64, 3))
    corners = (image[2, 2], image[2, -3], image[-3, 2], image[-3, -3])
    for seen, expected in zip(corners, TURNED[orientation]):
        assert near(seen, expected)


def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(Image.new("RGB", (16, 16), RED), "JPEG", exif=b"Exif\0\0garbage, no TIFF")
    assert near(picture_files.read_rgb(data)[0, 0], RED)


# Refusals

JPEG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)),
               "JPEG")  # fmt: skip
PNG = encoded(Image.new("RGB", (64, 64), RED), "PNG")


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "empty"),
        (b"hello, this is text", "not a JPEG, PNG or WebP"),
        (encoded(Image.new("RGB", (4, 4)), "GIF"), "not a JPEG, PNG or WebP"),
        (encoded(Image.new("RGB", (4, 4)), "BMP"), "not a JPEG, PNG or WebP"),
        (JPEG[:10], "damaged header.*[Tt]runcated"),
        (JPEG[: len(JPEG) // 2], "damaged picture.*truncated"),
        (PNG[:60], "damaged picture"),
        (PNG[:50] + b"\xff\xff\xff" + PNG[53:], "damaged picture"),
        (png_claiming(10, 10), "damaged picture"),
        (png_claiming(0, 10), "not a JPEG, PNG or WebP"),
        (png_claiming(30_000, 30_000), "too many pixels.*900000000"),
        (png_claiming(9_000, 8_000), "too many pixels: 9000 x 8000.*64,000,000"),
    ],
    ids=str.split(
        "empty text gif bmp jpeg-10 jpeg-half png-60 png-bits png-short png-0 bomb large"
    ),
)
def test_refuses_with_one_line(data, reason):
    with pytest.raises(ValueError, match=reason) as refusal:
        picture_files.read_rgb(data)
    assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pixel_limit_is_read_from_the_header(tmp_path):
    for reader in (picture_files.read_rgb, picture_files.read_size):
        with pytest.raises(ValueError, match="too many pixels"):
            reader(png_claiming(11_000, 11_000))  # Pillow itself only warns
        with pytest.raises(ValueError, match="64 x 64, the limit is 4,095"):
            reader(PNG, max_pixels=4_095)
    assert picture_files.read_rgb(PNG, max_pixels=4_096).shape == (64, 64, 3)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_bomb_warning_as_error_is_a_value_error():
    with pytest.raises(ValueError, match="too many pixels"):
        picture_files.read_rgb(png_claiming(11_000, 11_000))


def test_paths_are_read_and_not_repeated_in_refusals(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    for one in (path, str(path)):
        assert picture_files.read_rgb(one).shape == (64, 64, 3)
    assert picture_files.read_size(path) == (64, 64)
    path.write_bytes(b"not a picture")
    for bad in (path, tmp_path / "absent.png", tmp_path):
        with pytest.raises(ValueError) as refusal:
            picture_files.read_rgb(bad)
        assert str(tmp_path) not in str(refusal.value)


# Arrays that data sets call pictures

def test_arrays_to_rgb():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = np.stack([grey] * 3, 2)
    np.testing.assert_array_equal(picture_files.rgb(grey), expected)
    np.testing.assert_array_equal(picture_files.rgb(grey[..., None]), expected)
    assert picture_files.rgb(expected) is expected
    half = np.zeros((1, 2, 4), np.uint8)
    half[0, 1] = 7, 8, 9, 255
    assert picture_files.rgb(half).tolist() == [[[255, 255, 255], [7, 8, 9]]]


@pytest.mark.parametrize("shape, kind", [
    ((2, 3), np.float32), ((2, 3, 2), np.uint8), ((2,), np.uint8), ((0, 3, 3), np.uint8),
    ((1, 2, 3, 3), np.uint8)])
def test_other_arrays_are_no_pictures(shape, kind):
    with pytest.raises(ValueError, match="not a picture"):
        picture_files.rgb(np.zeros(shape, kind))
