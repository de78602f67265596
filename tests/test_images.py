"""Values, sizes, grids, crops and files of pictures."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stackgan_tf import images, picture_files

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
    np.testing.assert_array_equal(picture_files.read_rgb(images.encode_png(image)), image)
    path = tmp_path / "new" / "folder" / "image.png"
    images.save_png(path, image)
    images.save_png(str(path), image[::-1])
    np.testing.assert_array_equal(picture_files.read_rgb(path), image[::-1])
    with pytest.raises(ValueError, match="float"):
        images.save_png(path, image / 255.0)
    np.testing.assert_array_equal(picture_files.read_rgb(path), image[::-1])
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
    cropped = images.crop_to_box(picture_files.read_rgb(file.getvalue()), box)
    assert images.resize_square(cropped, 8).shape == (8, 8, 3)


def test_a_long_word_is_cut_in_a_moment():
    # 3,000 letters without a space, as in captions in Chinese, took more than five minutes
    sheet = images.labelled_grid([np.zeros((1, 40, 40, 3), np.uint8)], ["x" * 3_000])
    lines = (sheet.shape[0] - 44) // 19  # 14 pixels of font, 19 a line
    assert 3_000 / 7 < lines < 3_000 / 3  # x is 7 pixels wide or so: 4 to 6 fit


def test_marks_without_width_do_not_hang():
    grid = images.labelled_grid([np.zeros((1, 40, 40, 3), np.uint8)], ["a" + "\u0301" * 500])
    assert grid.shape[1] == 44
