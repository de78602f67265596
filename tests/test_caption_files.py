"""Which captions are a picture's, where they lie in files beside the pictures."""

import unicodedata

import pytest

from stackgan_tf.caption_files import CaptionFiles


@pytest.fixture
def make(tmp_path):
    """make(name, ...) -> CaptionFiles of these, each of which holds its own name."""
    def files(*names):
        for name in names:
            path = tmp_path / "text_c10" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return CaptionFiles(tmp_path / "text_c10")
    return files


def test_pictures_numbered_in_each_folder_have_their_own(make):
    files = make(*[f"{bird}/{i}.txt" for bird in ("robin", "finch", "crow") for i in range(3)])
    for bird in ("robin", "finch", "crow"):
        for name in (f"{bird}/1", f"{bird}/1.jpg", f"images/{bird}/1.png", f"{bird}\\1.jpg"):
            assert files.of(name) == [f"{bird}/1.txt"]
    assert files.of("robin/7") == []


def test_captions_of_another_folder_s_picture_are_not_taken(make):
    files = make("robin/0.txt", "crow/1.txt")
    assert files.of("crow/0.jpg") == [] and files.of("robin/0.jpg") == ["robin/0.txt"]


def test_the_longest_common_way_decides(make):
    files = make("train/robin/0.txt", "test/robin/0.txt")
    assert files.of("images/test/robin/0.png") == ["test/robin/0.txt"]


def test_its_name_is_enough_where_no_captions_have_its_folder(make):
    """As the flowers': jpg/image_00001.jpg, class_00001/image_00001.txt."""
    files = make("class_1/image_1.txt", "class_2/image_2.txt", "class_2/a.b.txt")
    assert files.of("jpg/image_2.jpg") == ["class_2/image_2.txt"] == files.of("jpg/image_2.jpg")
    assert files.of("image_1") == ["class_1/image_1.txt"]
    assert files.of("jpg/a.b") == ["class_2/a.b.txt"]


def test_what_is_not_known_is_refused(make):
    files = make("robin/0.txt", "crow/0.txt", "flat/9.txt")
    with pytest.raises(ValueError, match="of jpg/0.jpg may be .*robin/0.txt or .*crow/0.txt|"
                                         "of jpg/0.jpg may be .*crow/0.txt or .*robin/0.txt"):
        files.of("jpg/0.jpg")
    assert files.of("a/9.jpg") == ["flat/9.txt"]
    with pytest.raises(ValueError, match="flat/9.txt may be of a/9.jpg or of b/9.jpg; put"):
        files.of("b/9.jpg")


def test_another_encoding_is_no_text(make, tmp_path):
    files = make("robin/0.txt")
    for encoding in ("utf-16", "utf-16-be"):
        (tmp_path / "text_c10/robin/0.txt").write_text("a red bird", encoding=encoding)
        with pytest.raises(ValueError, match="robin/0.txt is no UTF-8; save it so"):
            files.of("robin/0.jpg")


def test_either_spelling_of_a_letter_is_the_letter(make):
    composed, split = (unicodedata.normalize(form, "jardín/é1") for form in ("NFC", "NFD"))
    assert composed != split
    assert make(split + ".txt").of(composed + ".jpg") == [split + ".txt"]
