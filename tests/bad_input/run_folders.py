"""Runs and SavedModels that are damaged, are something else, or are not there."""

import io
import itertools
import json

import numpy as np
from bad_input.mistakes import Copy, case, folder, gone, link, on_run

TRAIN = "train --dataset=folder --batch_size=2 --data_dir=D --text_encoder="
STAGE2 = ("train --stage=2 --dataset=folder --batch_size=2 --data_dir=D --image_size=32 "
          "--embedding_dim=0 --stage1=")
DRAW = "sample --captions=abc"


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def claims(shape):
    """A .npy whose header claims this shape, with 16 bytes behind it."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': %s, }" % (shape,)
    header += " " * (117 - len(header)) + "\n"
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode() + bytes(16)


READERS = itertools.cycle([DRAW, "evaluate", "export --output=O", "train --stage=2"])
DRAWERS = itertools.cycle([DRAW, "export --output=O", "evaluate"])


def settings(content, *words):
    """config.json of a Stage-I, for the commands that read it in turn."""
    return on_run(next(READERS), "runs/sketch/stage1/config.json is damaged", *words,
                  files={"runs/sketch/stage1/config.json": content})


def model(content, *words):
    """In the place of a run's Stage-I, for the commands that draw with it in turn."""
    return on_run(next(DRAWERS), "runs/sketch/stage1/saved_model", *words,
                  files={"runs/sketch/stage1/saved_model": content})


def cut(path):
    with open(path, "r+b") as file:
        file.truncate(100)


PB = "runs/sketch/stage1/saved_model/saved_model.pb"
VARIABLES = "runs/sketch/stage1/saved_model/variables"
ENCODER = "runs/sketch/text_encoder/saved_model"
VECTORS = "sample --embeddings="

CASES = {
    # the run
    "no such run": case(f"{DRAW} --run=none", "--run=none: no such run in checkpoints (there is n",
                        "python -m stackgan_tf.train --stage=1"),
    "no such run among others": case(
        f"{DRAW} --run=none --checkpoint_dir=runs", "(there are: both)", files={
            "runs/both": Copy("both"), "runs/.both.7.tmp": Copy("both")}),  # an import was killed
    "run above": case(f"{DRAW} --run=../D", "--run='../D' is no folder name"),
    "run above to evaluate": case("evaluate --run=..", "--run='..' is no folder name"),
    "run above to export": case("export --output=O --run=..", "--run='..' is no folder name"),
    "run without a name": case(f"{DRAW} --run=", "--run='' is no folder name"),
    "run a file": case(f"{DRAW} --run=F --checkpoint_dir=.", "--run=F: no such run",
                       files={"F": ""}),
    "run a loop": case(f"{DRAW} --run=L --checkpoint_dir=.", "--run=L: no such run",
                       files={"L": link("L")}),
    "run of another thing": case(f"{DRAW} --run=D --checkpoint_dir=.", "no trained stage 1",
                                 "train it with: python -m stackgan_tf.train --stage=1 --run=D"),
    "checkpoint_dir missing": case(f"{DRAW} --checkpoint_dir=none", "no such run in none"),
    "checkpoint_dir of a new line": case([*DRAW.split(), "--checkpoint_dir=a\nb"], r"in a\nb"),
    "checkpoint_dir too long": case(f"{DRAW} --checkpoint_dir={'x' * 5000}", "--run=default"),
    "stage that is not trained": on_run(f"{DRAW} --stage=2", "has no trained stage 2",
                                        "--stage=2 --run=sketch"),
    "going on without a checkpoint": on_run(
        "train --dataset=folder --data_dir=D --embedding_dim=0 --batch_size=2", "no checkpoint to "
        "go on from", "Choose another --run", run="silent"),
    "run that is locked by a folder": case(
        "train --dataset=folder --data_dir=D --embedding_dim=0 --batch_size=2",
        "checkpoints/default/stage1/lock", files={"checkpoints/default/stage1/lock": folder}),

    # its settings
    "config.json of 0 bytes": settings("", "move the folder"),
    "config.json cut off": settings('{"stage": 1, "run": "ske', "move the folder"),
    "config.json binary": settings(b"\x80\x04\x95\xff\xfe", "move the folder"),
    "config.json a list": settings("[1, 2]", "it holds one list"),
    "config.json a number": settings("7", "it holds one int"),
    "config.json null": settings("null"),
    "config.json a folder": settings(folder, "move the folder"),
    "config.json nested without end": settings("[" * 100_000),
    "config.json of text for a number": settings('{"noise_dim": "100"}', "noise_dim"),
    "config.json of a list for a text": settings('{"dataset": ["folder"]}', "dataset"),
    "config.json of null for a number": settings('{"crop_margin": null}', "crop_margin"),
    "config.json of a number for a choice": settings('{"text_once": 3}', "text_once is"),
    "config.json of nan": settings('{"crop_margin": NaN}', "NaN"),
    "config.json of infinity": settings('{"crop_margin": Infinity}', "Infinity"),
    "config.json of another data set": on_run(
        "evaluate --metrics=attribute_accuracy", "was trained on --dataset=folder", files={
            "runs/sketch/stage1/config.json": '{"dataset": "folder"}'}),
    "config.json of a data set of no name": on_run(
        f"{DRAW} --neighbors=2", "--dataset=x is unknown", files={
            "runs/sketch/stage1/config.json": '{"dataset": "x"}'}),
    "config.json missing for neighbors": on_run(f"{DRAW} --neighbors=2", "has no config.json"),
    "config.json missing for another precision": on_run(
        "export --output=O --precision=float32", "no config.json in", "leave --precision out"),
    "config.json of another network": on_run(
        "export --output=O --precision=float32", "does not hold the network that its config.json",
        files={"runs/sketch/stage1/config.json": '{"embedding_dim": 4, "image_size": 16}'}),
    "config.json of an impossible network": on_run(
        "export --output=O --precision=float32", "config.json", files={
            "runs/sketch/stage1/config.json": '{"embedding_dim": 4, "image_size": -16}'}),
    "neighbors of moved data": on_run(f"{DRAW} --neighbors=2 --data_dir=none", "data_dir=none",
                                      files={"runs/sketch/stage1/config.json":
                                             '{"dataset": "folder", "data_dir": "D"}'}),
    "training on with other settings": on_run(
        "train --dataset=folder --data_dir=D --embedding_dim=0 --batch_size=2 --seed=5",
        "was made with other settings: --seed=5 (was 4)", "or choose another --run", run="silent",
        files={"runs/silent/stage1/config.json": json.dumps({"seed": 4}),
               "runs/silent/stage1/ckpt/step-00000001": ""}),
    "training on without settings": on_run(
        "train --dataset=folder --data_dir=D --embedding_dim=0 --batch_size=2",
        "runs/silent/stage1/config.json is gone", "restore it, or move the folder", run="silent",
        files={"runs/silent/stage1/ckpt/step-00000001": ""}),

    "Stage-II without the settings of its Stage-I": on_run(
        "train --stage=2 --dataset=folder --data_dir=D --batch_size=2",
        "runs/sketch/stage1/config.json is gone", "restore it, or move the folder",
        files={"runs/sketch/stage1/ckpt/step-00000001": ""}),
    "Stage-II without the Stage-I that it was trained on": on_run(
        "train --stage=2 --dataset=folder --data_dir=D --batch_size=2",
        "runs/sketch/stage2/stage1, the Stage-I that", "is gone; put it back",
        files={"runs/sketch/stage2/ckpt/step-00000001": ""}),

    # its SavedModels
    "Stage-I gone": model(gone, "is missing", "train it with"),
    "Stage-I a file": model(b"hello", "is missing", "train it with"),
    "Stage-I an empty folder": model(folder, "is missing", "train it with"),
    "Stage-I of numbers": model(Copy("numbers"), "does not map noise"),
    "Stage-I a text encoder": model(Copy("encoder"), "does not map noise"),
    "Stage-I of more inputs": model(Copy("more inputs"), "does not map noise"),
    "Stage-I of flat pictures": model(Copy("flat pictures"), "does not map noise"),
    "Stage-I of gray pictures": model(Copy("gray pictures"), "does not map noise"),
    "Stage-I of no signature": model(Copy("no signature"), "has no signature serving_default"),
    "SavedModel of 0 bytes": on_run(DRAW, "saved_model cannot be loaded", files={PB: b""}),
    "SavedModel of other bytes": on_run(DRAW, "saved_model cannot be loaded", files={PB: "<html>"}),
    "SavedModel cut off": on_run(DRAW, "saved_model cannot be loaded", files={PB: cut}),
    "SavedModel a folder in it": on_run(DRAW, "saved_model", files={PB: folder}),
    "SavedModel without variables": on_run(DRAW, "saved_model cannot be loaded", files={
        VARIABLES: gone}),
    "SavedModel without an index": on_run(DRAW, "saved_model cannot be loaded", files={
        f"{VARIABLES}/variables.index": gone}),
    "variables cut off": on_run(DRAW, "saved_model cannot be loaded", files={
        f"{VARIABLES}/variables.data-00000-of-00001": cut}),
    "pictures that are no numbers": on_run("sample", "makes no finite picture", "earlier check",
                                           run="silent", files={
        "runs/silent/stage1/saved_model": Copy("nan pictures")}),
    "text encoder gone": on_run(DRAW, "text encoder", "has no saved_model.pb",
                                files={ENCODER: gone}),
    "text encoder of other bytes": on_run(DRAW, "text encoder", "cannot be loaded", files={
        f"{ENCODER}/saved_model.pb": b"hello"}),
    "text encoder of another size": on_run(DRAW, "gives 8 numbers a caption", "reads 4", files={
        ENCODER: Copy("encoder")}),
    **{f"text encoder {word}": case(f"{TRAIN}E", "text encoder E does not map string [B]",
                                    files={"E": Copy(word)})
       for word in ("numbers", "no numbers", "two answers", "of any size", "stage1",
                    "columns of texts", "eight texts")},
    **{f"text encoder of {word}": case(f"{TRAIN}E", "text encoder E", words,
                                       files={"E": Copy(word)})
       for word, words in {"nan texts": "as numbers that are not finite; take another",
                           "one text": "makes (1, 8) of two captions",
                           "moody texts": "in one way and then in another; export it for inference",
                           "refused texts": "cannot embed"}.items()},
    "text encoder missing": case(f"{TRAIN}none", "text encoder none is no SavedModel folder"),
    "text encoder a file": case(f"{TRAIN}D/0.png", "text encoder D/0.png is no SavedModel folder"),
    "text encoder one folder too high": case(
        f"{TRAIN}E", "text encoder E is no SavedModel folder", "; give E/saved_model.", files={
            "E/saved_model": Copy("encoder")}),
    "text encoder that a checkpoint still has": on_run(
        "train --stage=2 --dataset=folder --data_dir=D --batch_size=2 --embedding_dim=4 "
        "--noise_dim=5 --condition_dim=3", "the text encoder that Stage-I",
        "train_text_encoder, with the flags of its training", files={
            ENCODER: gone, "runs/sketch/text_encoder/ckpt/step-00000001": "",
            "runs/sketch/text_encoder/config.json":
            '{"dataset": "folder", "data_dir": "D", "embedding_dim": 4}',
            "runs/sketch/stage1/saved_model/assets.extra/text_encoder.json":
            '{"fingerprint": [1, 2, 3, 4]}'}),
    "text encoder of no signature": case(f"{TRAIN}E", "E has no signature serving_default",
                                         files={"E": Copy("no signature")}),
    "text encoder a Keras file": case(f"{TRAIN}E.keras", "E.keras is no SavedModel folder",
                                      files={"E.keras": b"PK\x03\x04"}),
    "text encoder of another dim": case(f"{TRAIN}E --embedding_dim=7", "--embedding_dim=7 does not",
                                        "which gives 8", files={"E": Copy("encoder")}),
    **{f"Stage-I under Stage-II {word}": case(f"{STAGE2}S", "Stage-I S", words,
                                              files={"S": Copy(word)})
       for word, words in {"numbers": "does not map noise", "encoder": "does not map noise",
                           "flat pictures": "does not map", "more inputs": "does not map noise",
                           "gray pictures": "does not map", "oblong pictures": "16x8",
                           "byte pictures": "does not map", "pictures of one row": "does not map",
                           "pictures of doubles": "does not map", "one picture": "of two rows",
                           "nan pictures": "pixels from nan", "bright pictures": "255 to 255; ",
                           "odd pictures": "24x24", "no signature": "serving_default"}.items()},
    "Stage-I under Stage-II missing": case(f"{STAGE2}none", "none is no SavedModel folder"),
    "Stage-I under Stage-II that reads captions": case(
        f"{STAGE2}S", "--embedding_dim=0 does not fit Stage-I S, which reads 8",
        files={"S": Copy("stage1")}),
    "Stage-I as large as Stage-II": case(
        f"{STAGE2}S --image_size=32", "--image_size=32 is not larger than the 32", "=128", files={
            "S": Copy("as large")}),

    # what is drawn
    "no caption": on_run("sample", "draws what a caption says; give one: --captions="),
    "caption of blanks": on_run(["sample", "--captions= \t"], "caption 1 of 1 is empty"),
    "caption of no UTF-8": on_run(["sample", "--captions=ab", "--captions=\udcff"],
                                  "caption 2 of 2", "UTF-8"),
    "captions of both kinds": on_run(f"{DRAW} --captions_file=F", "two ways to say", "give one"),
    "captions_file missing": on_run("sample --captions_file=F", "captions_file=F cannot be read"),
    "captions_file a folder": on_run("sample --captions_file=D", "captions_file=D cannot be read"),
    "captions_file a loop": on_run("sample --captions_file=L", "captions_file=L cannot be read",
                                   files={"L": link("L")}),
    "captions_file of an old Mac": on_run(
        "sample --captions_file=F", "line 1 holds a carriage return", files={"F": b"red\rblue\n"}),
    "captions_file of zeros": on_run("sample --captions_file=/dev/zero", "more than 10,000 bytes"),
    "captions of a run without text": on_run(DRAW, "was trained without text; leave --captions out",
                                             run="silent"),
    "vectors missing": on_run(f"{VECTORS}V.npy", "--embeddings=V.npy cannot be read: No such file"),
    "vectors a folder": on_run(f"{VECTORS}V.npy", "V.npy cannot be read", files={"V.npy": folder}),
    **{f"vectors {name}": on_run(f"{VECTORS}V.npy", "--embeddings=V.npy holds", words, files={
        "V.npy": content}) for name, (content, words) in {
            "of 0 bytes": (b"", "no vectors"), "a web page": (b"<html>", "no vectors"),
            "cut off": (npy(np.ones((2, 4), np.float32))[:-8], "no vectors"),
            "a zip": (b"PK\x03\x04" + bytes(60), "no vectors"),
            "of objects": (npy(np.array([{}], object)), "no vectors"),
            "that claim terabytes": (claims((10**12, 4)), "no vectors"),
            "that claim more than there is": (claims((10**20, 4)), "no vectors"),
            "that claim less than nothing": (claims((-1, 4)), "no vectors"),
            "of another size": (npy(np.ones((2, 9), np.float32)), "shape (n, 4)"),
            "of whole numbers": (npy(np.ones((2, 4), int)), "finite floats"),
            "of nan": (npy(np.full((2, 4), np.nan, np.float32)), "finite floats"),
            "of complex numbers": (npy(np.ones((2, 4), complex)), "finite floats"),
            "of texts": (npy(np.array(["a", "b"])), "finite floats"),
            "of nothing": (npy(np.ones((0, 4), np.float32)), "finite floats"),
            "of five axes": (npy(np.ones((1, 1, 1, 1, 4), np.float32)), "finite floats"),
        }.items()},
    "vectors a pickle that runs": on_run(f"{VECTORS}V", "V asks for posix.system", files={
        "V": b"cposix\nsystem\n(S'touch ran'\ntR."}),
    "vectors a text": on_run(f"{VECTORS}V", "V is no pickle", files={"V": "1 2 3 4\n"}),
    "truncation of words": on_run(f"{DRAW} --truncation=much", "--truncation=much is no number"),
    "truncation nan": on_run(f"{DRAW} --truncation=nan", "--truncation=nan is no number"),
    "truncation -1": on_run(f"{DRAW} --truncation=-1", "--truncation=-1 is no number of at"),
    "epsilon scale of words": on_run(f"{DRAW} --epsilon_scale=much",
                                     "--epsilon_scale=much is no number"),
    "text strength of an older run": on_run(
        f"{DRAW} --text_strength=2", "text_strength needs the mean embedding", "leave it out"),
    "truncation of nothing": on_run([*DRAW.split(), "--truncation="], "--truncation= "),
    "output that is taken": on_run(f"{DRAW} --output=O", "--output=O already holds grid.png",
                                   files={"O/grid.png": b""}),
    "output that is for metrics": on_run(
        f"{DRAW} --output=O", "O holds pictures that --folder made", files={"O/sample.json": "{}"}),
    "folder of other pictures": on_run(
        f"{DRAW} --folder=O", "--folder=O holds grid.png beside", files={
            "O/sample.json": "{}", "O/grid.png": b""}),
    "folder of another run": on_run(f"{DRAW} --folder=O", "O/sample.json is damaged",
                                    files={"O/sample.json": "[1]"}),
}
