"""The watchdog speaks once, when there is something to say."""

import numpy as np
import pytest

from stackgan_tf.watchdog import REPORTS, Watchdog


@pytest.mark.parametrize("real, fake, words", [
    (1.0, 1.0, "tells all of them apart"), (0.0, 0.0, "wrong about all"),
    (1.0, 0.0, "takes everything for real"), (0.0, 1.0, "takes everything for generated")])
def test_accuracy_pinned_at_0_or_1_is_said_once(real, fake, words):
    dog = Watchdog()
    assert not any(dog.accuracy(real, fake) for _ in range(REPORTS - 1))
    assert words in dog.accuracy(real, fake)
    assert not any(dog.accuracy(real, fake) for _ in range(20))
    assert dog.accuracy(0.5, 1.0) is None  # it is over, and may come again
    assert [bool(dog.accuracy(real, fake)) for _ in range(REPORTS)].index(True) == REPORTS - 1


def test_accuracy_that_moves_is_no_news():
    dog, rng = Watchdog(), np.random.default_rng(0)
    assert not any(dog.accuracy(1.0, 0.875 + 0.125 * (i % (REPORTS - 1) > 0)) for i in range(99))
    assert not any(dog.accuracy(0.75, 0.75) for _ in range(99))  # the same, but not pinned
    assert not any(dog.accuracy(*rng.integers(0, 2, 2)) for _ in range(4 * REPORTS))


def test_variety_is_the_deviation_of_a_pixel_from_picture_to_picture():
    pictures = np.zeros((4, 2, 2, 3), np.uint8)
    pictures[:2, 0] = 51  # half the pictures, half the pixels: (25.5 / 255) / 2
    assert Watchdog().samples(pictures) == (pytest.approx(0.05), None)


def test_samples_that_become_one_picture_are_said_once():
    rng = np.random.default_rng(0)
    varied = rng.integers(0, 256, (8, 4, 4, 3)).astype(np.uint8)
    one = np.repeat(varied[:1], 8, 0)
    gray = np.full_like(one, 128)  # what an untrained generator makes
    dog = Watchdog()
    assert dog.samples(gray) == (0.0, None)
    assert dog.samples(varied)[1] is None
    assert "nearly the same picture" in dog.samples(one)[1]
    assert dog.samples(one)[1] is None
    # the next process knows what there was
    assert "was 0.2" in Watchdog(dog.variety).samples(one)[1]
