"""Flags that cannot be understood, and values that cannot be."""

import dataclasses

from bad_input.mistakes import case, link, on_run, usage

from stackgan_tf.config import Config

FOLDER = "train --dataset=folder --data_dir=D --embedding_dim=0"
HELP = "--help"

CASES = {
    # cannot be understood
    "unknown": usage("train --batchsize=3", "batchsize", "Did you mean: batch_size", HELP),
    "unknown in emoji": usage("train --🌸=3", "🌸", HELP),
    "unknown of control characters": usage(["train", "--a\x1b[31m\nb=3"], r"a\x1b[31m\nb", HELP),
    "unknown of 5000 letters": usage(["train", "--" + "x" * 5000], "longer than any", HELP),
    "of another command": usage("export --captions=x", "captions", HELP),
    "one hyphen and a letter": usage("train -s", "'s'", HELP),
    "letters for a number": usage("train --batch_size=many", "--batch_size=many is no whole num"),
    "a fraction of a picture": usage("train --batch_size=3.5", "--batch_size=3.5 is no whole numb"),
    "exponent in a whole number": usage("train --train_steps=1e3", "--train_steps=1e3 is no whole"),
    "5000 digits": usage(["train", "--seed=" + "9" * 5000], "--seed=999", "is too long a number"),
    "nothing for a number": usage("train --seed=", "--seed= is no whole number"),
    "no value": usage("train --seed", "Missing value for flag --seed", HELP),
    "letters for a float": usage("train --learning_rate=fast", "--learning_rate=fast is no number"),
    "comma in a float": usage("train --learning_rate=0,1", "--learning_rate=0,1 is no number"),
    "neither true nor false": usage("train --text_once=maybe", "--text_once=maybe is neither true"),
    "no- with a value": usage("train --notext_once=1", "--notext_once=1", HELP),
    "no hyphens": usage("train stage=1", "unexpected 'stage=1'", "--name=value"),
    "a dash of a word processor": usage("train –stage=1", "unexpected '–stage=1'", "--name=value"),
    "two values": usage("train --stage 1 2", "unexpected '2'", "--name=value"),
    "behind --": usage("train -- --stage=1", "unexpected '--stage=1'"),
    "sample: count 0": usage("sample --count=0", "--count=0", "[1, 10000000]"),
    "sample: count beyond": usage("sample --count=100000000", "--count=100000000", "10000000"),
    "sample: stage 3": usage("sample --stage=3", "--stage=3", "[1, 2]"),
    "sample: seed beyond int64": usage(f"sample --seed={2**63}", f"--seed={2**63}"),
    "sample: half a quote": usage(["sample", '--truncation="1'], "--truncation=", HELP),
    "sample: interpolate words": usage("sample --interpolate=words", "captions|noise"),
    "export: version 0": usage("export --version=0", "--version=0"),
    "export: float16": usage("export --precision=float16", "float32|bfloat16"),
    "export: batch 0": usage("export --batch_size=0", "--batch_size=0", "[1, 1024]"),
    "export: epsilon scale -1": usage("export --epsilon_scale=-1", "--epsilon_scale=-1"),
    "export: truncation 11": usage("export --truncation=11", "--truncation=11"),
    "evaluate: count -1": usage("evaluate --count=-1", "--count=-1"),
    "prepare: letters": usage("prepare --shards=x", "--shards=x is no whole number"),
    "flagfile missing": usage("train --flagfile=none", "--flagfile=none cannot be read: No such",
                              "give a text file of flags"),
    "flagfile a folder": usage("train --flagfile=D", "--flagfile=D cannot be read: Is a directory"),
    "flagfile no text": usage("train --flagfile=F", "--flagfile is no UTF-8 text", "one a line",
                              files={"F": b"\xff\xd8\xff\xe0--seed=1"}),
    "flagfile in UTF-16": usage("train --flagfile=F", "--flagfile is no UTF-8 text",
                                files={"F": "--seed=1\n".encode("utf-16")}),
    "flagfile with a byte order mark": usage(
        "train --flagfile=F", r"unexpected '\ufeff--seed=1'", files={"F": "\ufeff--seed=1\n"}),
    "flagfile with a NUL": usage("train --flagfile=F", "--run holds a NUL", "take it out",
                                 files={"F": "--run=a\0b\n"}),
    "flagfile with words": usage("train --flagfile=F", "unexpected 'seed 1'",
                                 files={"F": "seed 1\n"}),

    # understood, but cannot be
    "run of two folders": case("train --run=a/b", "--run='a/b' is no folder name", "letters"),
    "run above": case("train --run=..", "--run='..' is no folder name"),
    "run of a new line": case(["train", "--run=a\nb"], r"--run='a\nb' is no folder name"),
    "run with a space": case(["train", "--run=my run"], "--run='my run' is no folder name"),
    "run of 5000 letters": case(["train", "--run=" + "r" * 5000], "--run='rrr", "is no folder name",
                                "100"),
    "stage 0": case("train --stage=0", "--stage=0 is unknown; choose one of 1, 2"),
    "preset of new lines": case(["train", "--preset=\n\n"], r"--preset=\n\n is unknown"),
    "nothing for a preset": case("train --preset=", "--preset= is unknown; choose one of"),
    "data set of no name": case("train --dataset=", "--dataset= is unknown; choose one of"),
    "data set of a module": case("train --dataset=os.path", "--dataset=os.path is unknown"),
    "data set above": case("train --dataset=../folder", "--dataset=../folder is unknown"),
    "data set in Greek": case("train --dataset=λουλούδι", "--dataset=λουλούδι is unknown"),
    "epochs and steps": case("train --epochs=1 --train_steps=1", "exactly one of them"),
    "neither epochs nor steps": case("train --epochs=0 --train_steps=0", "exactly one of them"),
    "64 pixels in 3 channels": case("train --generator_width=5 --image_size=128",
                                    "--generator_width=5 cannot be halved", "multiple of"),
    "image size beyond": case("train --image_size=2048", "--image_size=2048", "from 16 to 1024"),
    "image size -64": case("train --image_size=-64", "--image_size=-64", "power of two"),
    "r1 with batch norm": case(f"{FOLDER} --discriminator_norm=batch --r1_weight=1",
                               "--r1_weight=1.0", "add --discriminator_norm=none"),
    "r1 in float16": case(f"{FOLDER} --r1_weight=1 --precision=mixed_float16",
                          "--r1_weight=1.0 needs", "mixed_bfloat16"),
    "batch larger than the data": case(f"{FOLDER} --batch_size=64", "--batch_size=64 is more than "
                                       "the 4 pictures", "try --batch_size=2"),
    "batch beyond all": case(f"{FOLDER} --batch_size={10**30}", f"--batch_size={10**30}",
                             "try --batch_size=2"),
    "stage 2 of nothing": case("train --stage=2 --run=new", "--stage=2 needs a Stage-I",
                               "--stage=1 --run=new"),
    "stage 1 on a Stage-I": case("train --stage1=x", "--stage1=x is for --stage=2 only"),
    "captions read in no text": case(f"{FOLDER} --relu_condition", "--relu_condition has no use"),
    "encoder in no text": case(f"{FOLDER} --text_encoder=encoder", "--text_encoder=encoder has no "
                               "use with --embedding_dim=0"),
    "training an encoder that is given": case("train_text_encoder --text_encoder=x",
                                              "--text_encoder=x names one that is there already"),
    "training an encoder of no text": case("train_text_encoder --embedding_dim=0",
                                           "--embedding_dim=0 trains without text"),
    "encoder batch larger than the data": case(
        "train_text_encoder --dataset=folder --data_dir=D --text_encoder_batch_size=9",
        "--text_encoder_batch_size=9 is more than the 4 pictures"),
    "encoder batch larger than the data to train on": case(
        "train --dataset=folder --data_dir=D --batch_size=2 --text_encoder_batch_size=9",
        "--text_encoder_batch_size=9 is more than the 4 pictures", "text_encoder_batch_size=2"),

    # places
    "checkpoint_dir a file": case(f"{FOLDER} --checkpoint_dir=F", "F", "is no folder; choose",
                                  "--checkpoint_dir", files={"F": ""}),
    "checkpoint_dir below a file": case(f"{FOLDER} --checkpoint_dir=F/a/b", "F is no folder",
                                        files={"F": ""}),
    "checkpoint_dir a loop": case(f"{FOLDER} --checkpoint_dir=L", "L is no folder",
                                  "--checkpoint_dir", files={"L": link("L")}),
    "checkpoint_dir too long": case(f"{FOLDER} --batch_size=2 --checkpoint_dir={'x' * 300}",
                                    "xxx", "ile name too long", "--checkpoint_dir"),
    "checkpoint_dir of no such kind": case(
        f"{FOLDER} --batch_size=2 --checkpoint_dir=s3://b/x", "scheme 's3' not implemented",
        "give a folder of this machine, or one of gs://"),
    "export to no such kind": on_run("export --output=s3://b/x", "scheme 's3' not implemented"),
    "part of the run a file": case(f"{FOLDER} --batch_size=2", "stage1 is no folder",
                                   files={"checkpoints/default/stage1": ""}),
    "export to nowhere": case("export", "--output=FOLDER"),
    "export to a file": on_run("export --output=F", "--output",
                             "F is no folder", files={"F": ""}),
    "export below a file": on_run("export --output=F/a/b",
                                "F is no folder", files={"F": ""}),
    "export a version that no server reads": usage(
        f"export --output=O --version={2**63}", f"--version={2**63}", str(2**63 - 1)),
    "export truncation nan": on_run("export --output=O "
                                  "--truncation=nan", "--truncation=nan", "at least 0"),
    "export text strength beyond": usage("export --output=O --text_strength=1e38",
                                         "--text_strength=1e38", "10"),
    "export text strength of an older run": on_run(
        "export --output=O --text_strength=2", "text_strength needs the mean embedding",
        "'sketch' does not have; leave it out"),
    # before the run is loaded, which is found not to be there only then
    "sample into a file": case("sample --captions=ab --run=none --output=F",
                               "F is no folder; choose another --output", files={"F": ""}),
    "sample below a file": case("sample --captions=ab --run=none --output=F/a/b",
                                "F is no folder; choose another --output", files={"F": ""}),
    "sample fills a file": on_run("sample --captions=ab "
                                "--folder=F", "--folder=F", "is a file", files={"F": ""}),
    "sample fills the data": on_run("sample --captions=ab "
                                  "--folder=D", "--folder=D holds", "choose an empty folder"),
    "sample fills a bucket": on_run("sample --captions=ab "
                                  "--folder=gs://b/f", "gs://b/f", "give a local --folder"),
    "prepare to nowhere": case("prepare --dataset=folder --data_dir=D", "--output is missing"),
    "prepare into the data": case("prepare --dataset=folder --data_dir=D --output=D",
                                  "--output=D holds other files; choose a new folder"),
    "prepare to a file": case("prepare --dataset=folder --data_dir=D --output=F", "F",
                              "choose", files={"F": ""}),
    "prepare below a file": case("prepare --dataset=folder --data_dir=D --output=F/a", "F/a",
                                 "choose another", files={"F": ""}),
    "prepare pictures of 3 pixels": case("prepare --dataset=folder --data_dir=D --output=O "
                                         "--max_size=3", "--max_size=3", "at least 16"),
    "prepare by -1 processes": case("prepare --dataset=folder --data_dir=D --output=O --workers=-1",
                                    "--workers=-1", "at least 0"),
    "inspect into a file": case("inspect_data --dataset=folder --data_dir=D --output=F",
                                "--output=F is a file; choose another", files={"F": ""}),
    "inspect below a file": case("inspect_data --dataset=folder --data_dir=D --output=F/a",
                                 "cannot make F/a", "choose another --output", files={"F": ""}),
    "inspect over a report": case("inspect_data --dataset=folder --data_dir=D --output=O",
                                  "--output=O already holds report.json",
                                  files={"O/report.json": "{}"}),
    "inspect over a loop": case("inspect_data --dataset=folder --data_dir=D --output=L", "L",
                                "choose another", files={"L": link("L")}),
    "import nothing": case("import_pytorch", "--weights=netG_epoch_N.pth --to=RUN"),
    "import to a folder above": case("import_pytorch --weights=D/0.png --to=../up",
                                     "--to='../up' is no folder name"),
}


def _numbers():
    """Each number of Config as no number and, where it is bounded, beyond."""
    for field in dataclasses.fields(Config):
        if field.type is float:
            for value in ("nan", "inf"):
                yield field.name, value
        elif field.type is int and field.name != "stage":
            yield field.name, str(-10**30)


CASES |= {f"--{name}={value}": case(f"train --{name}={value}", f"--{name}=")
          for name, value in _numbers()}
