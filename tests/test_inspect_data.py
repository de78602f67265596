"""inspect_data on a folder made by hand, in which every number is known."""

import json

import numpy as np
import pytest
from conftest import command_here
from PIL import Image
from test_webdataset import sample, tar

from stackgan_tf import build, data_report, data_report_text, images, inspect_data
from stackgan_tf.config import UserError, resolve

# file: (width, height), mode, color of the left half, captions, class, split
LONG = "a grey " + "x" * 195  # 202 characters, one more than is read
PICTURES = {
    "big.png": ((300, 600), "RGB", (200, 30, 30), ["A red bird.", "a red   bird", "red bird"],
                "bird", "train"),
    "wide.jpg": ((400, 100), "L", (90,), ["the grey bird on a branch"], "bird", "train"),
    "tiny.png": ((1, 1), "RGB", (1, 2, 3), [LONG], "cat", "train"),
    "again.png": ((300, 600), "RGB", (200, 30, 30), ["the red cat"], "cat", "train"),
    "flat.png": ((256, 256), "RGB", (7, 7, 7), ["größere 赤"], "cat", "train"),
    "copy.png": ((300, 600), "RGB", (200, 30, 30), ["a red bird"], "cat", "test"),
    "new.png": ((64, 64), "RGBA", (1, 200, 3, 255), ["a green dog, red dog"], "dog", "test"),
}
OUTSIDE = (("broken.png", "test"), ("empty.png", "train"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of PICTURES, with three lines that cannot be used and two damaged files."""
    path = tmp_path_factory.mktemp("my pictures")
    lines = []
    for name, (size, mode, color, captions, label, split) in PICTURES.items():
        picture = Image.new(mode, size, color)
        if "flat" not in name:
            picture.paste(0 if mode == "L" else (0,) * len(color), (0, 0, size[0] // 2, size[1]))
        picture.save(path / name)
        lines.append({"file": name, "captions": captions, "class": label, "split": split})
    for name, split in OUTSIDE:
        (path / name).write_bytes(b"" if "empty" in name else b"no picture")
        lines.append({"file": name, "captions": ["?"], "class": "cat", "split": split})
    lines.append({"file": "gone.png", "captions": ["gone"], "class": "cat", "split": "train"})
    lines.append({"file": "big.png", "captions": [""], "class": "cat", "split": "train"})
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines) + "nonsense\n"
    (path / "captions.jsonl").write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def report(made):
    settings = resolve({"dataset": "folder", "data_dir": made, "stage": 2, "max_unreadable": 0})
    return inspect_data.inspect(settings)[0]


@pytest.fixture
def raw(monkeypatch):
    """raw(train, test) makes `inspect` read these elements; returns its report and sheet."""
    def read(train, test=()):
        splits = {"train": train, "test": test}
        monkeypatch.setattr(build, "raw_elements", lambda config, split: iter(splits[split]))
        return inspect_data.inspect(resolve({"stage": 2}))
    return read


def picture(number, size=256):
    """A picture of its own for each number."""
    image = np.zeros((size, size, 3), np.uint8)
    image[0, :4, 0] = [number // 100 + 1, number % 100, number % 7, 9]
    return image


def element(number, **more):
    return {"image": picture(number), "captions": [f"picture number {number}".encode()],
            "file_name": f"{number}.png".encode(), **more}


def test_pictures_and_sizes(report):
    train, test = report["splits"]["train"], report["splits"]["test"]
    assert (train["pictures"], test["pictures"]) == (5, 2)
    assert train["width"] == [1, 300, 400] and train["height"] == [1, 256, 600]
    assert train["shorter_side"] == [1, 256, 300]
    assert train["long_to_short"] == [1, 2, 4]  # 600:300 and 400:100
    assert train["shorter_than_64"] == 1 and train["shorter_than_256"] == 2  # 1 and 100
    assert train["more_than_2_to_1"] == 1  # 400:100; 600:300 is 2:1
    assert test["width"] == [64, 182, 300] and test["shorter_than_64"] == 0


def test_modes_grey_and_flat(report):
    train, test = report["splits"]["train"], report["splits"]["test"]
    assert train["modes"] == {"RGB": 4, "L": 1} and test["modes"] == {"RGB": 1, "RGBA": 1}
    assert train["grey"] == 2 and test["grey"] == 0  # wide.jpg and flat.png
    assert train["one_color"] == 2  # flat.png and the single pixel
    assert test["one_color"] == 0


def test_classes(report):
    train, test = report["splits"]["train"]["classes"], report["splits"]["test"]["classes"]
    assert train == {"count": 2, "pictures": [2, 2.5, 3], "smallest": "bird", "largest": "cat"}
    assert test["count"] == 2
    assert report["both_splits"]["classes_in_both"] == 1  # cat


def test_captions(report):
    captions = report["splits"]["train"]["captions"]
    assert captions["count"] == 7 and captions["a_picture"] == [1, 1, 3]
    assert captions["words"] == [2, 3, 6]  # "red bird"; "the grey bird on a branch"
    assert captions["characters"] == [8, 11, 202]
    assert captions["too_long"] == 1 and captions["outside_alphabet"] == 1
    assert captions["unknown_characters"] == {"ö": 1, "ß": 1, "赤": 1}
    frequent = captions["frequent_words"]
    assert list(frequent.items())[:3] == [("red", 4), ("bird", 4), ("grey", 2)]
    assert "a" not in frequent and "the" not in frequent


def test_duplicates_of_captions(report):
    captions = report["splits"]["train"]["captions"]
    # "A red bird." = "a red   bird" but for case and marks; "red bird" but for the stop word
    assert captions["duplicates"] == 0
    assert captions["duplicates_but_for_case_punctuation_space"] == 1
    assert captions["duplicates_but_for_stop_words"] == 1
    assert captions["repeated_in_picture"] == 1
    assert captions["most_repeated"] == {"caption": "a red bird", "times": 2}
    assert report["both_splits"]["test_captions_in_train"] == 1


def test_copies_within_and_across_splits(report):
    assert report["splits"]["train"]["copies_in_split"] == [["again.png", "big.png"]]
    assert report["splits"]["test"]["copies_of_other_split"] == [["copy.png", "big.png"]]
    assert report["both_splits"]["test_pictures_in_train"] == 1


def test_every_unreadable_file_and_line_is_listed(report):
    bad = {one["file"]: one["reason"] for split in report["splits"].values()
           for one in split["unreadable"]}
    assert set(bad) == {"broken.png", "empty.png", "captions.jsonl line 10",
                        "captions.jsonl line 11", "captions.jsonl line 12"}
    assert "0 bytes" in bad["empty.png"] and "not a JPEG" in bad["broken.png"]
    assert "gone.png" in bad["captions.jsonl line 10"]
    assert "not JSON" in bad["captions.jsonl line 12"]


def test_each_finding_has_its_warning(report):
    text = "\n".join(report["warnings"])
    for words in ("train: 4 pictures or lines cannot be used", "--max_unreadable=0",
                  "train: 1 picture smaller than 64", "train: 1 picture of 64 to 255",
                  "train: 1 picture longer than 2:1", "train: 2 pictures of one flat color",
                  "train: 1 picture is an exact copy", "train: 1 caption longer than the 201",
                  "such as ß ö 赤", "--text_encoder=PATH", "train: 1 caption repeated at the same",
                  "test: 1 picture is in train too", "train: 5 pictures in all"):
        assert words in text, words
    assert "empty caption" not in text and "without a caption" not in text


def test_table_fits_a_terminal_and_holds_what_was_found(report):
    lines = data_report_text.table(report).splitlines()
    assert max(map(len, lines[1:])) <= 80  # the first holds the folder's path
    row = next(line.split() for line in lines if line.startswith("  shorter side under 256"))
    assert row[-2:] == ["2", "1"]
    assert "  test: copy.png is big.png" in lines


def test_command_writes_both_files_and_never_over_others(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*flags):
        return command_here("inspect_data", "--dataset=folder", *flags, check=False)

    done = run(f"--data_dir={made}")
    assert done.returncode == 0 and "What looks wrong" in done.stdout, done.stderr
    again = run(f"--data_dir={made}")
    assert "inspect_folder-2" in again.stdout
    with open(tmp_path / "inspect_folder/report.json") as file:
        assert json.load(file)["splits"]["test"]["pictures"] == 2
    assert Image.open(tmp_path / "inspect_folder/contact_sheet.png").size[0] > 160
    first, second = (open(tmp_path / folder / "contact_sheet.png", "rb").read()
                     for folder in ("inspect_folder", "inspect_folder-2"))
    assert first == second
    refused = run(f"--data_dir={made}", "--output=inspect_folder")
    assert refused.returncode == 1 and "already holds report.json" in refused.stderr
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert run(f"--data_dir={made}", "--output=~/seen").returncode == 0
    assert (tmp_path / "home/seen/report.json").exists() and not (tmp_path / "~").exists()
    unread = run("--data_dir=nowhere")
    assert unread.returncode == 1 and "nowhere does not exist" in unread.stderr
    assert not (tmp_path / "inspect_folder-3").exists()


def test_output_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file; choose another"):
        inspect_data.make_folder(str(tmp_path / "file"), "folder")
    with pytest.raises(UserError, match="cannot make .*choose another --output"):
        inspect_data.make_folder(str(tmp_path / "file/below"), "folder")


def test_folder_without_splits_is_read_once(folder):
    report, sheet = inspect_data.inspect(resolve({"dataset": "folder", "data_dir": folder,
                                                  "stage": 2}))
    assert report["without_split"] and list(report["splits"]) == ["train"]
    assert any("train and test are the same" in line for line in report["warnings"])
    assert len(sheet.kept) == 12


def test_tars_without_splits_are_read_once(tmp_path):
    tar(tmp_path / "0.tar", [*sample(0), *sample(1)])
    report, _ = inspect_data.inspect(resolve({
        "dataset": "webdataset", "data_dir": str(tmp_path), "stage": 2}))
    assert report["without_split"] and report["splits"]["train"]["pictures"] == 2
    assert list(report["splits"]) == ["train"]


def test_folder_without_test_lines(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "captions.jsonl").write_text(
        json.dumps({"file": "a.png", "captions": ["x"], "split": "train"}))
    report, _ = inspect_data.inspect(resolve({"dataset": "folder", "data_dir": str(tmp_path),
                                              "stage": 2}))
    assert report["splits"]["train"]["pictures"] == 1 and "test" in report["missing"]


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.png").write_bytes(b"junk")
    (tmp_path / "captions.jsonl").write_text(json.dumps({"file": "a.png", "captions": ["x"]}))
    with pytest.raises(UserError, match="none of 1 .*a.png"):
        inspect_data.inspect(resolve({"dataset": "folder", "data_dir": str(tmp_path), "stage": 2}))


def test_nothing_suspicious(raw):
    report, _ = raw([element(i, label=i % 5) for i in range(data_report_text.FEW)],
                    [element(i, label=i % 2 + 5) for i in range(1000, 1010)])
    assert report["warnings"] == [] and report["both_splits"]["classes_in_both"] == 0
    assert data_report_text.table(report).endswith("Nothing suspicious.")


def test_elements_that_hold_empty_captions_or_none(raw):
    rows = [element(0), element(1, captions=[b"", b" \t", b"bird"]), element(2, captions=[])]
    report, _ = raw(rows, [element(3, captions=[])])
    captions = report["splits"]["train"]["captions"]
    assert captions["empty"] == 2 and captions["pictures_without"] == 1
    assert report["splits"]["test"]["captions"] is None
    text = "\n".join(report["warnings"])
    assert "train: 2 empty captions" in text and "train: 1 picture without a caption" in text
    assert "test: 1 picture and no caption" in text and "--embedding_dim=0" in text


def test_embeddings_in_place_of_captions(raw):
    rng = np.random.default_rng(0)
    vectors = rng.normal(3.0, 0.1, (4, 10, 16)).astype(np.float32)
    broken = vectors[0].copy()
    broken[2, 5], broken[7, 0] = np.nan, np.inf
    rows = [{"image": picture(i), "embeddings": v} for i, v in enumerate([broken, *vectors[1:]])]
    found = raw(rows)[0]
    embeddings = found["splits"]["train"]["embeddings"]
    good = np.concatenate([np.delete(broken, [2, 7], 0), *vectors[1:]])
    assert (embeddings["count"], embeddings["dims"], embeddings["not_finite"]) == (40, [16], 2)
    assert embeddings["mean"] == pytest.approx(good.mean(), rel=1e-5)
    assert embeddings["std"] == pytest.approx(good.std(), rel=1e-4)
    text = "\n".join(found["warnings"])
    assert "2 embeddings with NaN" in text and "deviation of 0.1" in text
    assert "no caption" not in text


def test_a_split_that_breaks_off_is_reported(raw):
    def breaking():
        yield element(0)
        raise ValueError("shard 3 is damaged.")

    report, _ = raw(breaking(), [element(1)])
    assert report["splits"]["train"]["pictures"] == 1
    assert any("stopped before the end: shard 3 is damaged." in w for w in report["warnings"])


@pytest.mark.parametrize("classes, most", [(1, 24), (3, 8), (5, 5), (30, 1)])
def test_contact_sheet_is_spread_over_classes(raw, classes, most):
    rows = [element(i, label=i % classes) for i in range(90)]
    _, sheet = raw(rows)
    assert len(sheet.kept) == inspect_data.CELLS
    counts = np.unique([title for title, _, _ in sheet.kept.values()], return_counts=True)[1]
    assert counts.max() == most and counts.min() >= most - 1
    again = raw(rows)[1]
    assert list(again.kept) == list(sheet.kept)  # a fixed choice


def test_contact_sheet_layout():
    red, blue = np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20, 3), np.uint8)
    red[..., 0], blue[..., 2] = 250, 250
    sheet = images.contact_sheet([red, blue, red], ["", "a long blue caption", ""], 2)
    assert sheet.shape[1] == 2 * 20 + 3 * 6
    assert (sheet[6:26, 6:26] == red).all() and (sheet[6:26, 32:52] == blue).all()
    below = sheet[26:80]
    assert below[:, 32:52].min() < 128 and (below[:, :32] == 255).all()  # blue's caption alone
    assert (sheet[:, -6:] == 255).all()


@pytest.mark.parametrize("caption, expected", [
    ("  A Red,  bird!\n", "a red bird"), ("left-right", "left right"),
    ("Größe: “klein”", "grösse klein"), ("a 🐦", "a 🐦"), ("...", ""), ("赤い鳥。", "赤い鳥"),
])
def test_normalized(caption, expected):
    assert data_report.normalized(caption) == expected


def test_different_emoji_and_swapped_words_are_no_duplicates():
    captions = data_report.Captions()
    captions.add(["🐦", "🌸", "!", "?", "red petals on blue", "blue petals on red"])
    found = captions.report()
    assert found["duplicates_but_for_case_punctuation_space"] == 0
    assert found["duplicates_but_for_stop_words"] == 0
