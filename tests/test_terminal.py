"""A file's name may hold what clears the screen, colors it or types for the user: it is spelled
out, whoever reads the file."""

import json
import logging

import pytest
import test_prepare
import test_reed
import test_webdataset
from conftest import command_here

from stackgan_tf import build, prepare
from stackgan_tf.messages import printable

NAME = "\x1b[2J\x9b5m\x07\x08"  # also an 8-bit one
SHOWN = r"\x1b[2J\x9b5m\x07\x08"


def test_what_is_printed_as_it_is():
    assert printable("größe 🌸 a\\b 'c'") == "größe 🌸 a\\b 'c'"
    assert printable("a\r\nb\t\0\u202e") == r"a\r\nb\t\x00\u202e"  # the last: right to left


def make_folder(path):
    test_prepare.make_folder(path, 4)
    lines = [json.loads(line) for line in (path / "captions.jsonl").read_text().splitlines()]
    lines[1]["file"] = f"{NAME}.png"
    (path / lines[1]["file"]).write_bytes((path / "1.png").read_bytes()[:-200])
    (path / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_tars(path):
    test_webdataset.tar(path / "a.tar", [*test_webdataset.sample(0), (f"{NAME}.png", b"no"),
                                         (f"{NAME}.txt", b"x")])


def make_reed(path):
    test_reed.write_split(path / "train", names=[f"a/{NAME}", *test_reed.NAMES[1:]])
    test_reed.write_pictures(path / "images", test_reed.NAMES[1:])


MAKERS = {"folder": make_folder, "webdataset": make_tars, "reed": make_reed}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_skipped_picture_s_name_is_spelled_out(tmp_path, tiny, caplog, kind):
    MAKERS[kind](tmp_path)
    config = tiny(dataset=kind, data_dir=str(tmp_path), embedding_dim=test_reed.DIM)
    with caplog.at_level(logging.WARNING):
        list(build.load_elements(config, "train"))
    (said,) = caplog.messages
    assert said.startswith("skipped ") and said.isprintable()
    assert SHOWN in said


def test_prepare_and_inspect_spell_it_out(tmp_path, capsys):
    make_folder(tmp_path)
    assert prepare.prepare(test_prepare.settings(tmp_path, tmp_path / "out")) == 0
    done = command_here("inspect_data", "--dataset=folder", f"--data_dir={tmp_path}",
                        f"--output={tmp_path}/report")
    for said in (capsys.readouterr().out, done.stdout):
        assert SHOWN in said.replace("\n", "").replace(" ", "")
        assert all(line.isprintable() for line in said.split("\n"))
