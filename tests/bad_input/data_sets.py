"""Manifests, pickles, tars and prepared sets.

What a line of a manifest and a pickle can have wrong is in test_folder.py, test_reed.py and
test_restricted_pickle.py, sample by sample in a tar in test_webdataset.py.
"""

import io
import itertools
import json
import os
import pickle
import tarfile

import numpy as np
from bad_input.mistakes import case, folder, gone, link

FOLDER = "train --dataset=folder --embedding_dim=0 --batch_size=2 --data_dir="
TEXT = "train --dataset=folder --batch_size=2 --data_dir="
REED = "train --dataset=reed --batch_size=2 --data_dir=R"
TARS = "prepare --dataset=webdataset --output=O --data_dir="
PREPARED = "train --dataset=prepared --batch_size=2 --data_dir=P"
LINE = '{"file": "0.png", "captions": ["a"]}'


INSPECT = "inspect_data --dataset=folder --data_dir="
PREPARE = "prepare --dataset=folder --output=O --data_dir="


READERS = itertools.cycle([FOLDER, INSPECT, PREPARE])


def manifest(content, *words, command=""):
    """The manifest of D has this content, for the commands that read one in turn."""
    return case((command or next(READERS)) + "D", *words, files={"D/captions.jsonl": content})


def tar(*members):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as file:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return data.getvalue()


def reed(**changes):
    """Reed's layout, of two pictures; changes: {file of train/ without its end: content}."""
    files = {"filenames": pickle.dumps(["0", "1"], 2),
             "class_info": pickle.dumps([1, 2], 2),
             "char-CNN-RNN-embeddings": pickle.dumps(
                 [np.full((2, 4), i, np.float32) for i in range(2)], 2),
             "76images": pickle.dumps(
                 [np.full((76, 76, 3), i, np.uint8) for i in range(2)], 2)}
    return {f"R/train/{name}.pickle": content for name, content in {**files, **changes}.items()
            if content is not None}



class Evil:
    def __reduce__(self):
        return os.mkdir, ("R/ran",)


def prepared(plan=None, **files):
    """A prepared set that says to be whole; `files` beside it."""
    plan = {"settings": {"small_size": 0}, "captions": {"train": 4}, "whole": True} if (
        plan is None) else plan
    return {"P/prepared.json": plan if isinstance(plan, (bytes, str)) else json.dumps(plan),
            **{f"P/{name}.json": content for name, content in files.items()}}


INFO = json.dumps({"name": "prepared", "version": "1.0.0", "fileFormat": "tfrecord", "splits": [
    {"name": "train", "shardLengths": ["4"], "numBytes": "100",
     "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"}]})
IMAGE = {"pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
         "image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8",
                   "encodingFormat": "jpeg"}}


def features(**changes):
    return json.dumps({
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": {"image": IMAGE, **changes}}})


CASES = {
    # folders
    "no data_dir": case(FOLDER, "data_dir is empty; give the folder that holds captions.jsonl"),
    "data_dir of blanks": case(["train", "--dataset=folder", "--data_dir=  "], "data_dir is empty"),
    "data_dir missing": case(FOLDER + "none", "data_dir=none does not exist"),
    "data_dir a file": case(FOLDER + "D/0.png", "data_dir=D/0.png is not a folder"),
    "data_dir a loop": case(FOLDER + "L", "data_dir=L does not exist", files={"L": link("L")}),
    "data_dir too long": case(FOLDER + "x" * 5000, "--data_dir='xxx", "ile name too long",
                              "give a --data_dir"),
    "data_dir of nobody": case(FOLDER + "~nobody_of_this_name/x", "data_dir=~nobody_of_this_name/x",
                               "captions.jsonl"),
    "data_dir in a bucket": case(FOLDER + "gs://bucket/x", "gs://bucket/x does not exist"),
    "data_dir of a new line": case([*FOLDER.split()[:-1], "--data_dir=a\nb"], r"data_dir=a\nb"),
    "manifest missing": case(FOLDER + "D", "captions.jsonl is missing; write one line a picture",
                             'without text, "file" alone', files={"D/captions.jsonl": gone}),
    "manifest of other capitals": manifest('{"file": "0.PNG", "captions": ["a"]}', "which is not",
                                           'write "0.png", which is there'),
    "manifest of another form of Unicode": case(
        TEXT + "D", r'write "in/cafe\u0301.png", which is there', files={
            "D/in/cafe\u0301.png": b"",
            "D/captions.jsonl": '{"file": "in/caf\u00e9.png", "captions": ["a"]}'}),
    "manifest a folder": case(FOLDER + "D", "captions.jsonl is missing; write one line a picture",
                              files={"D/captions.jsonl": folder}),
    "manifest a loop": case(FOLDER + "D", "captions.jsonl is missing", files={
        "D/captions.jsonl": lambda path: (gone(path), os.symlink("captions.jsonl", path))}),
    "manifest of 0 bytes": manifest("", "captions.jsonl is empty; write one line a picture"),
    "manifest of blank lines": manifest("\r\n \r\n", "captions.jsonl is empty"),
    "manifest a picture": manifest(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "line 1", "UTF-8"),
    "manifest in UTF-16": manifest(
        LINE.encode("utf-16"), "line 1: byte 1 is not UTF-8", "save it as UTF-8"),
    "manifest a JSON array": manifest(f"[{LINE},\n {LINE}]", "captions.jsonl line 1: not JSON"),
    "manifest of two objects a line": manifest(LINE + LINE, "line 1: not JSON (Extra data"),
    "manifest of CSV": manifest("file,caption\n0.png,a\n", "line 1: not JSON"),
    "manifest with old Mac line ends": manifest(f"{LINE}\r{LINE}", "line 1: not JSON"),
    "a byte order mark in line 2": manifest(
        # inspect_data lists what is wrong beside what is good
        f"{LINE}\n\ufeff{LINE}", "line 2: not JSON", command=FOLDER),
    "a NUL behind a line": manifest(LINE + "\0\n", "line 1: not JSON"),
    "a line of 10 MB": manifest(
        LINE[:-1] + ', "x": "' + "x" * 10**7 + "\n", "line 1: not JSON", "images/a.jpg"),
    "a path of 10 MB": manifest('{"file": "%s", "captions": ["a"]}' % ("x" * 10**7),
               "line 1", "cannot be opened"),
    "the number nan": manifest('{"file": NaN, "captions": ["a"]}', 'line 1: "file" is NaN'),
    "a file of new lines": manifest('{"file": "\\n\\n", "captions": ["a"]}', 'line 1: "file" is'),
    "a file of colors": manifest(
        '{"file": "\\u001b[31mred", "captions": ["a"]}', "line 1", r"\x1b[31mred"),
    "file twice in a line": manifest(
        '{"file": "0.png", "captions": ["a"], "file": "1.png"}',
        'line 1: "file" stands twice in it; keep one'),
    "a home's file": manifest('{"file": "~/0.png", "captions": ["a"]}', "'~/0.png', which is not"),
    "a URL": manifest('{"file": "http://x/0.png", "captions": ["a"]}', "'http://x/0.png', which"),
    "the manifest as a picture": manifest(
        '{"file": "captions.jsonl", "captions": ["a"]}', "captions.jsonl",
        "not a JPEG, PNG or WebP", command=INSPECT),
    "one picture": case(FOLDER + "D", "a single picture; training needs 2", files={
        "D/captions.jsonl": LINE}),
    "no caption with text": case(
        TEXT + "D", 'line 1: "captions" is missing (the line has "file")',
        files={"D/captions.jsonl": '{"file": "0.png"}'}),
    "folder named *.png": case(FOLDER + "D", "line 2: \"file\" is '1.png', which is not a file",
                               files={"D/1.png": folder}),
    "pipe named *.png": case(
        FOLDER + "D", "line 2: \"file\" is '1.png', which is not a file",
        files={"D/1.png": lambda path: (gone(path), os.mkfifo(path))}),
    "picture a loop": case(FOLDER + "D", "line 2: \"file\" is", "circle", files={
        "D/1.png": lambda path: (gone(path), os.symlink("1.png", path))}),
    "split of nothing": case(FOLDER + "D", 'no line has "split": "train"', files={
        "D/captions.jsonl": LINE[:-1] + ', "split": "test"}'}),

    # Reed
    "reed: no data_dir": case("train --preset=birds", "data_dir is empty", "--data_dir=data/birds"),
    "reed: no train": case(REED.replace("=R", "=D"), "data_dir=D holds no folder train/"),
    "reed: train a file": case(REED, "data_dir=R holds no folder train/", files={"R/train": ""}),
    "reed: nothing in it": case(REED, "char-CNN-RNN-embeddings.pickle is missing",
                                "--noprecomputed_embeddings", files={"R/train/x": ""}),
    "reed: pickle of 0 bytes": case(REED, "filenames.pickle is empty (0 bytes); get it again",
                                    files=reed(filenames=b"")),
    "reed: pickle a folder": case(REED, "class_info.pickle", "directory",
                                  files=reed(class_info=folder)),
    "reed: embeddings a folder": case(REED, "char-CNN-RNN-embeddings.pickle is missing",
                                      files=reed(**{"char-CNN-RNN-embeddings": folder})),
    "reed: pickle a web page": case(REED, "filenames.pickle is no pickle", "get it again",
                                    files=reed(filenames="<!DOCTYPE html>\n<html>")),
    "reed: pickle a picture": case(REED, "76images.pickle is no pickle",
                                   files=reed(**{"76images": b"\xff\xd8\xff\xe0\0\x10JFIF"})),
    "reed: pickle that runs": case(REED, "filenames.pickle asks for posix.mkdir", "nothing of it",
                                   files=reed(filenames=pickle.dumps(Evil()))),
    "reed: embeddings that run": case(REED, "embeddings.pickle asks for posix.mkdir", files=reed(
        **{"char-CNN-RNN-embeddings": pickle.dumps([Evil()])})),
    "reed: pictures that run": case(REED, "76images.pickle asks for posix.mkdir", files=reed(
        **{"76images": pickle.dumps([np.zeros((76, 76, 3), np.uint8), Evil()])})),
    "reed: npz for a pickle": case(REED, "filenames.pickle is no pickle", files=reed(
        filenames=b"PK\x03\x04" + b"\0" * 60)),
    "reed: embeddings of text": case(REED, "embeddings.pickle: entry 0 is", files=reed(
        **{"char-CNN-RNN-embeddings": pickle.dumps(["a", "b"], 2)})),
    "reed: embeddings a dict": case(REED, "embeddings.pickle holds one dict", files=reed(
        **{"char-CNN-RNN-embeddings": pickle.dumps({"a": 1}, 2)})),
    "reed: a dim that is not theirs": case(
        REED + " --embedding_dim=9", "--embedding_dim=9 does not fit", "have 4 numbers",
        files=reed()),
    "reed: an encoder besides": case(REED + " --text_encoder=x", "--text_encoder=x has no use",
                                     "--noprecomputed_embeddings", files=reed()),
    "reed: image_dir missing": case(REED + " --image_dir=none", "no picture of", "--image_dir",
                                    files=reed()),
    "reed: no captions": case(REED + " --noprecomputed_embeddings", "no text_c10/",
                              "--captions_dir", files=reed()),
    "reed: captions_dir missing": case(REED + " --captions_dir=none", "none is not there",
                                       files=reed()),
    "reed: captions_dir empty": case(REED + " --captions_dir=C", "holds no .txt file",
                                     files={"C": folder, **reed()}),

    # tars
    "tars: no data_dir": case(TARS, "data_dir is empty; give a folder, a pattern"),
    "tars: none": case(TARS + "D", "data_dir=D holds no tar; give a folder, a pattern"),
    "tars: missing": case(TARS + "none.tar", "data_dir=none.tar holds no tar"),
    "tars: 0 bytes": case(TARS + "x.tar", "x.tar cannot be read", "fetch it again",
                          files={"x.tar": b""}),
    "tars: a web page": case(TARS + "x.tar", "x.tar cannot be read", "fetch it again",
                             files={"x.tar": "<html>" * 200}),
    "tars: zipped": case(TARS + "x.tar.gz", "x.tar.gz is no plain .tar", "gunzip",
                         files={"x.tar.gz": b"\x1f\x8b\x08"}),
    "tars: zipped by another name": case(TARS + "x.tar", "x.tar cannot be read",
                                         files={"x.tar": b"\x1f\x8b\x08" + bytes(600)}),
    "tars: a folder named x.tar": case(TARS + "x.tar", "data_dir=x.tar holds no tar",
                                       files={"x.tar": folder}),
    "tars: cut off": case(TARS + "x.tar", "x.tar cannot be read", "fetch it again", files={
        "x.tar": tar(("a.jpg", b"x" * 2000), ("a.txt", b"a"))[:1200]}),
    "tars: of no picture": case(TARS + "x.tar", "holds no picture to train on", "it has no picture",
                                "add some", files={"x.tar": tar(("a.txt", b"a"))}),

    # prepared sets
    "prepared: no data_dir": case(PREPARED[:-1], "data_dir is empty", "stackgan_tf.prepare"),
    "prepared: a folder of pictures": case(PREPARED[:-1] + "D", "data_dir=D is no prepared set"),
    "prepared: half made": case(PREPARED, "data_dir=P is half made; give the command that began",
                                files=prepared({"settings": {}})),
    **{f"prepared: plan {name}": case(PREPARED, "data_dir=P cannot be read", "prepare", files=(
        prepared(plan))) for name, plan in {
            "of 0 bytes": "", "cut off": '{"whole": tr', "binary": b"\xff\xfe\0", "a list": "[1]",
            "a number": "7", "a text": '"whole"', "null": "null", "nested": "[" * 100_000,
            "without captions": {"whole": True, "settings": {"small_size": 0}},
            "without settings": {"whole": True, "captions": {"train": 4}},
            "captions a text": {"whole": True, "captions": "many", "settings": {"small_size": 0}},
            "squares a text": {"whole": True, "captions": {"train": 4}, "squares": "all",
                               "settings": {"small_size": 0}},
        }.items()},
    "prepared: plan a folder": case(PREPARED, "data_dir=P", files={"P/prepared.json": folder}),
    "prepared: no metadata": case(PREPARED, "data_dir=P cannot be read", files=prepared()),
    "prepared: metadata damaged": case(PREPARED, "data_dir=P cannot be read", files=prepared(
        dataset_info="{", features=features())),
    "prepared: metadata of a list": case(PREPARED, "data_dir=P cannot be read", files=prepared(
        dataset_info="[]", features=features())),
    "prepared: features damaged": case(PREPARED, "data_dir=P cannot be read", files=prepared(
        dataset_info=INFO, features="{")),
    "prepared: features of any module": case(PREPARED, "data_dir=P", "evil.Feature",
                                             "was not imported", files={
        **prepared(dataset_info=INFO, features=features(x={"pythonClassName": "evil.Feature"})),
        "evil.py": "import os\nos.mkdir('ran')"}),
    "prepared: no shards": case(PREPARED, "prepared-train.tfrecord-00000-of-00001", "data_dir",
                                files=prepared(dataset_info=INFO, features=features())),
    "prepared: shards of other bytes": case(PREPARED, "data_dir", files={
        **prepared(dataset_info=INFO, features=features()),
        "P/prepared-train.tfrecord-00000-of-00001": b"x" * 100}),
    "prepare: plan damaged": case("prepare --dataset=folder --data_dir=D --output=O",
                                  "O/prepared.json is damaged", "choose another --output",
                                  files={"O/prepared.json": "[]"}),
    "prepare: of other settings": case(
        "prepare --dataset=folder --data_dir=D --output=O --max_size=64", "begun with other",
        "--max_size=64 (was 32)", files={"O/prepared.json": json.dumps({"settings": {
            "max_size": 32}})}),

    # TFDS
    "tfds: no name": case("train --dataset=tfds:", "names no data set of TFDS"),
    "tfds: in the network": case("train --dataset=tfds:huggingface:mnist", "names no data set"),
    "tfds: not there": case("train --dataset=tfds:no_such_set --data_dir=D",
                            "is not known to TFDS"),
    "tfds: not prepared": case("train --dataset=coco_captions --data_dir=D", "is not prepared in D",
                               "download_and_prepare"),
}
