"""Reading pictures of every colour mode, refusing hostile ones, grids and files."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stackgan_tf import images

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


# Values


def test_round_trip_is_exact_for_every_byte():
    values = np.arange(256, dtype=np.uint8)
    floats = images.to_float(values)
    assert floats.dtype == np.float32 and floats[0] == -1.0 and floats[255] == 1.0
    np.testing.assert_array_equal(images.to_uint8(floats), values)


def test_to_uint8_rounds_and_clips():
    # (x + 1) * 127.5: 0.99 gives 253.725, which truncation would make 253.
    floats = np.array([[-7.0, -1.0, -0.99], [0.99, 1.0, 3.0]])
    np.testing.assert_array_equal(images.to_uint8(floats), [[0, 0, 1], [254, 255, 255]])


@pytest.mark.parametrize("bad", [np.zeros(3, np.uint8), np.array([0.0, np.nan])])
def test_to_uint8_refuses(bad):
    with pytest.raises(ValueError, match="uint8|NaN"):
        images.to_uint8(bad)


def test_to_float_refuses_floats():
    with pytest.raises(ValueError, match="float64"):
        images.to_float(np.zeros(3))


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
    image = images.read_rgb(data)
    assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    assert near(image[-1, -1], color, tolerance=3 if "jpeg" in name or "cmyk" in name else 1)


@pytest.mark.parametrize("bits, row, greys", [
    (2, b"\x1b", [0, 85, 170, 255]),  # 0, 1, 2, 3
    (4, b"\x01\x7f", [0, 17, 119, 255]),  # 0, 1, 7, 15
])
@pytest.mark.parametrize("place", range(4))
def test_a_transparent_grey_of_few_bits(bits, row, greys, place):
    transparent = struct.pack(">H", greys[place] * (2**bits - 1) // 255)
    image = images.read_rgb(png(4, 1, bits, 0, b"\0" + row, transparent))
    assert image[0, :, 0].tolist() == [*greys[:place], 255, *greys[place + 1:]]


def test_a_transparent_color_of_16_bits():
    """The second pixel has the color's low bytes for high ones, and is opaque."""
    color = struct.pack(">HHH", 0x1234, 0x56FF, 0x9A01)
    other = struct.pack(">HHH", 0x3400, 0xFF00, 0x0100)
    image = images.read_rgb(png(2, 1, 16, 2, b"\0" + color + other, color))
    assert image[0].tolist() == [[255, 255, 255], [0x34, 0xFF, 0x01]]


def test_opaque_pixels_of_a_transparent_palette_keep_their_colour():
    assert tuple(images.read_rgb(palette_with_transparency())[0, 0]) == BLUE


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (16, 16), color) for color in (RED, GREEN)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert tuple(images.read_rgb(data)[0, 0]) == RED


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
    image = images.read_rgb(encoded(Image.fromarray(pixels), file_format, exif=exif, **options))
    assert image.shape == ((64, 32, 3) if orientation in (5, 6, 7, 8) else (32, 64, 3))
    corners = (image[2, 2], image[2, -3], image[-3, 2], image[-3, -3])
    for seen, expected in zip(corners, TURNED[orientation]):
        assert near(seen, expected)


def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(Image.new("RGB", (16, 16), RED), "JPEG", exif=b"Exif\0\0garbage, no TIFF")
    assert near(images.read_rgb(data)[0, 0], RED)


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
        images.read_rgb(data)
    assert "\n" not in str(refusal.value)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_pixel_limit_is_read_from_the_header(tmp_path):
    for reader in (images.read_rgb, images.read_size):
        with pytest.raises(ValueError, match="too many pixels"):
            reader(png_claiming(11_000, 11_000))  # Pillow itself only warns
        with pytest.raises(ValueError, match="64 x 64, the limit is 4,095"):
            reader(PNG, max_pixels=4_095)
    assert images.read_rgb(PNG, max_pixels=4_096).shape == (64, 64, 3)


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_bomb_warning_as_error_is_a_value_error():
    with pytest.raises(ValueError, match="too many pixels"):
        images.read_rgb(png_claiming(11_000, 11_000))


def test_paths_are_read_and_not_repeated_in_refusals(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(PNG)
    assert images.read_rgb(path).shape == images.read_rgb(str(path)).shape == (64, 64, 3)
    assert images.read_size(path) == (64, 64)
    path.write_bytes(b"not a picture")
    for bad in (path, tmp_path / "absent.png", tmp_path):
        with pytest.raises(ValueError) as refusal:
            images.read_rgb(bad)
        assert str(tmp_path) not in str(refusal.value)


# Sizes


def test_center_square_keeps_the_middle():
    wide = np.zeros((2, 6, 3), np.uint8)
    wide[:, 2:4] = 9
    np.testing.assert_array_equal(images.center_square(wide), np.full((2, 2, 3), 9))
    np.testing.assert_array_equal(
        images.center_square(wide.transpose(1, 0, 2)), np.full((2, 2, 3), 9)
    )


def test_resize_square_shape_and_identity():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(images.resize_square(image, 5), image[:, 1:6])
    for size in (1, 3, 16):
        resized = images.resize_square(image, size)
        assert resized.shape == (size, size, 3) and resized.dtype == np.uint8


def test_shrinking_averages_and_does_not_alias():
    checkers = np.indices((64, 64)).sum(0) % 2 * 255
    image = np.repeat(checkers[..., None], 3, axis=2).astype(np.uint8)
    inner = images.resize_square(image, 16)[2:-2, 2:-2].astype(float)
    assert abs(inner.mean() - 127.5) < 1.5 and inner.std() < 3  # subsampling gives 0 or 255


# Grids and files


def colored(*values, size=4):
    return np.stack([np.full((size, size, 3), value, np.uint8) for value in values])


@pytest.mark.parametrize("count, columns, shape", [(1, 3, (8, 8)), (3, 3, (8, 20)),
                                                   (5, 3, (14, 20)), (2, 1, (14, 8))])  # fmt: skip
def test_grid_shape(count, columns, shape):
    assert images.grid(colored(*range(count)), columns).shape == (*shape, 3)


def test_grid_places_row_by_row_on_white():
    sheet = images.grid(colored(10, 20, 30), columns=2, padding=1)
    assert sheet.shape == (11, 11, 3)
    assert sheet[1, 1, 0] == 10 and sheet[1, 6, 0] == 20 and sheet[6, 1, 0] == 30
    assert (sheet[6:, 6:] == 255).all() and (sheet[0] == 255).all()


@pytest.mark.parametrize("bad", [np.zeros((0, 4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8),
                                 np.zeros((1, 4, 4, 3))])  # fmt: skip
def test_grid_refuses(bad):
    with pytest.raises(ValueError, match="need uint8"):
        images.grid(bad, 2)
    with pytest.raises(ValueError, match="columns=0"):
        images.grid(colored(1), 0)


def test_labelled_grid_aligns_rows_of_two_sizes():
    small, large = colored(10, 20, size=4), colored(30, 40, size=16)
    sheet = images.labelled_grid([small, large], ["", ""], padding=2)
    assert sheet.shape == (40, 38, 3)
    for top, values in ((2, (10, 20)), (22, (30, 40))):
        for left, value in zip((2, 20), values):
            assert (sheet[top : top + 16, left : left + 16] == value).all()


def test_labelled_grid_enlarges_by_nearest_pixel():
    row = np.array([[0, 200]], np.uint8).repeat(2, 0)[None, :, :, None].repeat(3, 3)
    sheet = images.labelled_grid([row, colored(9, size=8)], ["", ""], padding=0)
    assert (sheet[:8, :4] == 0).all() and (sheet[:8, 4:] == 200).all()


def test_labels_are_wrapped_above_their_row():
    row = colored(200, 200, size=64)
    bare = images.labelled_grid([row], [""])
    short = images.labelled_grid([row], ["a red bird"])
    long = images.labelled_grid([row], ["a red bird with a long black beak and white wings"])
    assert bare.shape[0] < short.shape[0] < long.shape[0]
    assert bare.shape[1] == short.shape[1] == long.shape[1]
    label = short[: short.shape[0] - bare.shape[0]]
    assert label.min() < 100  # there is ink
    np.testing.assert_array_equal(short[label.shape[0] :], bare)


@pytest.mark.parametrize(
    "label", ["鳥 🐦 \ud800", "a\nb\tc", "\u202eabc", "w" * 300, " ", "\0", "é ß ñ"]
)
def test_odd_labels_do_not_crash(label):
    sheet = images.labelled_grid([colored(1, size=8), colored(2, 3, size=8)], [label, "x"])
    assert sheet.dtype == np.uint8 and sheet.shape[1] == 22


def test_labelled_grid_refuses_a_missing_label():
    with pytest.raises(ValueError, match="2 rows and 1 labels"):
        images.labelled_grid([colored(1), colored(2)], ["x"])


def test_png_round_trip_and_whole_files_only(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    np.testing.assert_array_equal(images.read_rgb(images.encode_png(image)), image)
    path = tmp_path / "new" / "folder" / "image.png"
    images.save_png(path, image)
    images.save_png(str(path), image[::-1])
    np.testing.assert_array_equal(images.read_rgb(path), image[::-1])
    with pytest.raises(ValueError, match="float"):
        images.save_png(path, image / 255.0)
    np.testing.assert_array_equal(images.read_rgb(path), image[::-1])
    assert [file.name for file in path.parent.iterdir()] == ["image.png"]


# Cropping to a box

@pytest.mark.parametrize("box, rows, columns", [
    ((10, 5, 8, 4), (1, 13), (8, 20)),  # radius int(0.75 * 8) = 6 around (14, 7)
    ((30.0, 20.0, 20.0, 21.0), (15, 40), (25, 50)),  # 15 around (40, 30), cut at two edges
    ((-4, -4, 8, 8), (0, 6), (0, 6)),  # its center is the corner
    ((0, 0, 50, 40), (0, 40), (0, 50)),
])
def test_crop_to_box_as_the_released_code(box, rows, columns):
    y, x = np.mgrid[0:40, 0:50]
    cropped = images.crop_to_box(np.stack([y, x], 2), box)
    np.testing.assert_array_equal(cropped[:, 0, 0], range(*rows))
    np.testing.assert_array_equal(cropped[0, :, 1], range(*columns))


@pytest.mark.parametrize("box", [
    (10, 10, 0, 5), (10, 10, 5, -1), (np.nan, 1, 5, 5), (0, 0, np.inf, 5), (100, 10, 5, 5),
    (-50, -50, 9, 9), (10, 10, 1, 1), (30, 20, -5, -5), (1e300, 0, 1e300, 1),
    (1.7e308, 0, 1.7e308, 1)])  # the sum is not finite
def test_what_is_no_box_leaves_the_picture_whole(box):
    image = np.zeros((40, 50, 3), np.uint8)
    assert images.crop_to_box(image, box).shape == image.shape


ANY = st.floats(-1e6, 1e6) | st.floats(-60, 60) | st.floats() | st.integers(-100, 100)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(), (1,), (3,), (4,)]),
       st.tuples(ANY, ANY, ANY, ANY))
def test_a_crop_is_never_empty_nor_outside(height, width, channels, box):
    numbers = np.arange(height * width).reshape(height, width, *(1 for _ in channels))
    image = np.broadcast_to(numbers, (height, width, *channels))
    cropped = images.crop_to_box(image, box)
    assert cropped.size and cropped.shape[2:] == image.shape[2:]
    # every row goes on from the one above: a rectangle of the picture, and nothing else
    first = cropped.reshape(*cropped.shape[:2], -1)[:, :, 0]
    top, left = divmod(int(first[0, 0]), width)
    np.testing.assert_array_equal(
        first, np.arange(height * width).reshape(height, width)[
            top:top + len(first), left:left + len(first[0])])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"]), st.integers(1, 30),
       st.integers(1, 30), st.tuples(ANY, ANY, ANY, ANY))
def test_pictures_of_any_mode_come_through_crop_and_resize(mode, height, width, box):
    file = io.BytesIO()
    kind = "JPEG" if mode == "CMYK" else "PNG"
    Image.new("RGB", (width, height), (10, 200, 30)).convert(mode).save(file, kind)
    cropped = images.crop_to_box(images.read_rgb(file.getvalue()), box)
    assert images.resize_square(cropped, 8).shape == (8, 8, 3)


# Arrays that data sets call pictures

def test_arrays_to_rgb():
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    expected = np.stack([grey] * 3, 2)
    np.testing.assert_array_equal(images.rgb(grey), expected)
    np.testing.assert_array_equal(images.rgb(grey[..., None]), expected)
    assert images.rgb(expected) is expected
    half = np.zeros((1, 2, 4), np.uint8)
    half[0, 1] = 7, 8, 9, 255
    assert images.rgb(half).tolist() == [[[255, 255, 255], [7, 8, 9]]]


@pytest.mark.parametrize("shape, kind", [
    ((2, 3), np.float32), ((2, 3, 2), np.uint8), ((2,), np.uint8), ((0, 3, 3), np.uint8),
    ((1, 2, 3, 3), np.uint8)])
def test_other_arrays_are_no_pictures(shape, kind):
    with pytest.raises(ValueError, match="not a picture"):
        images.rgb(np.zeros(shape, kind))


def test_a_long_word_is_cut_in_a_moment():
    # 3,000 letters without a space, as in captions in Chinese, took more than five minutes
    sheet = images.labelled_grid([np.zeros((1, 40, 40, 3), np.uint8)], ["x" * 3_000])
    lines = (sheet.shape[0] - 44) // 19  # 14 pixels of font, 19 a line
    assert 3_000 / 7 < lines < 3_000 / 3  # x is 7 pixels wide or so: 4 to 6 fit


def test_marks_without_width_do_not_hang():
    grid = images.labelled_grid([np.zeros((1, 40, 40, 3), np.uint8)], ["a" + "\u0301" * 500])
    assert grid.shape[1] == 44
