"""Pictures a second that the input gives, and what share of a training step that is.

    python -m benchmarks.input_pipeline                       # ten minutes on two cores
    python -m benchmarks.input_pipeline --seconds=1 --rounds=3

Makes its own pictures in a temporary folder: 256x256 JPEGs, quality 95. Each way of input is
measured alone, in turn with the others and several times; printed is the median, and the range,
which shows how quiet the machine was. "bare" is tf.io.decode_jpeg of the same files in a map with
AUTOTUNE: what reading JPEGs costs at least. At 64, shards read the small copies that prepare
keeps; "folder" (decoded once) and "reed" (its pickled pictures) have them in memory. Bytes come out
of all but "tfds", which resizes floats.
"""

import io
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
import types

from absl import app, flags

flags.DEFINE_integer("pictures", 2048, "pictures made")
flags.DEFINE_float("seconds", 3.0, "of each measurement")
flags.DEFINE_integer("rounds", 5, "measurements of each way; the median counts")
flags.DEFINE_float("step_seconds", 0.12, "the default Stage-I step, of 16 pictures, without input")
flags.DEFINE_integer("batch_size", 16, "pictures of that step")
flags.DEFINE_string("one", "", "for the command itself: measure one way and print its rate")

WAYS = ("bare", "shards", "folder", "reed", "tfds")
# (size trained at, size kept): with the paper's margin Stage-I reads 76, Stage-II 304.
SIZES = ((64, 76), (256, 256))


def make_data(folder, count):
    """A captioned folder, the same as prepared shards, and the same as plain TFDS would give."""
    import numpy as np
    from PIL import Image

    from stackgan_tf import prepare
    from stackgan_tf.config import resolve

    pictures = os.path.join(folder, "pictures")
    os.makedirs(pictures)
    y, x = np.mgrid[:256, :256]
    rng = np.random.default_rng(0)
    with open(os.path.join(pictures, "captions.jsonl"), "w") as file:
        for i in range(count):
            waves = [127 + 90 * np.sin(x / (9 + i % 7) + y / 17 + k + i) for k in range(3)]
            image = np.stack(waves, -1) + rng.normal(0, 6, (256, 256, 1))
            Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(
                os.path.join(pictures, f"{i}.jpg"), quality=95)
            file.write(json.dumps({"file": f"{i}.jpg", "class": i % 20,
                                   "captions": [f"picture number {i}"]}) + "\n")
    reed = os.path.join(folder, "reed", "train")
    os.makedirs(reed)
    for name, values in (
            ("filenames", [f"{i}" for i in range(count)]),
            ("class_info", [i % 20 for i in range(count)]),
            ("char-CNN-RNN-embeddings", list(rng.normal(size=(count, 10, 128)).astype("float32"))),
            *((f"{size}images", [np.asarray(Image.open(os.path.join(
                pictures, f"{i}.jpg")).resize((size, size))) for i in range(count)])
              for size in (76, 304))):
        with open(os.path.join(reed, f"{name}.pickle"), "wb") as file:
            pickle.dump(values, file, protocol=2)
    config = resolve({"dataset": "folder", "data_dir": pictures})
    prepare.prepare(prepare.Settings(config, os.path.join(folder, "shards"), 304, 76, 0, 2, "", ()))


def batches(way, size, load, folder, batch_size):
    """An endless iterator of batches."""
    import numpy as np
    import tensorflow as tf

    from stackgan_tf import build, pipeline, stream
    from stackgan_tf.config import resolve
    from stackgan_tf.datasets import prepared

    pictures, output = os.path.join(folder, "pictures"), os.path.join(folder, "shards")
    if way == "bare":
        files = tf.io.gfile.glob(os.path.join(pictures, "*.jpg"))
        data = tf.data.Dataset.from_tensor_slices(files).repeat().map(
            lambda path: tf.io.decode_jpeg(tf.io.read_file(path), channels=3), tf.data.AUTOTUNE)
        return data.map(lambda image: tf.ensure_shape(image, [256, 256, 3])).batch(
            batch_size).prefetch(tf.data.AUTOTUNE)
    steps = 10**6
    if way == "tfds":  # what TFDS alone gives: decoded, shuffled, resized without antialias
        import tensorflow_datasets as tfds
        data = tfds.builder_from_directory(output).as_dataset(
            "train", shuffle_files=True, decoders={"small": tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(try_autocache=False))
        return data.repeat().shuffle(256).map(
            lambda e: tf.image.random_crop(tf.image.resize(
                e["image"], [load, load]) / 127.5 - 1.0, [size, size, 3]),
            tf.data.AUTOTUNE).batch(batch_size).prefetch(tf.data.AUTOTUNE)
    rng = np.random.default_rng(0)
    if way == "shards":
        train = prepared.describe(types.SimpleNamespace(data_dir=output), "train")
        made = stream.Stream(train, size, load, batch_size, 0, 2048)
        return made.dataset(0, steps)
    margin = load / size - 1 if way == "folder" else 0.1875  # Reed's are of 76 and 304
    config = resolve({"dataset": way, "image_size": size, "embedding_dim": 128,
                      "crop_margin": margin,
                      "data_dir": {"folder": pictures, "reed": os.path.join(folder, "reed")}[way]})
    examples = build.load_examples(config, "train")
    made = pipeline.Batches(examples, size, batch_size, 0)
    made.set_embeddings(rng.normal(size=(len(examples), 128)).astype(np.float32),
                        np.arange(len(examples) + 1))
    return made.dataset(0, steps)


def measure(way, size, load, folder, seconds, batch_size):
    """Pictures a second, and processor seconds a picture, once the pipeline is warm."""
    source = iter(batches(way, size, load, folder, batch_size))
    begin = time.perf_counter()
    while time.perf_counter() - begin < max(1.0, seconds / 2):  # AUTOTUNE finds its numbers
        next(source)
    count, begin, busy = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        next(source)
        count += batch_size
    return (count / (time.perf_counter() - begin), (time.process_time() - busy) / count)


def run(task, folder, values):
    """One measurement in a process of its own, on the given number of cores."""
    way, (size, load), cores = task
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.input_pipeline", f"--seconds={values.seconds}",
         f"--batch_size={values.batch_size}", f"--one={way},{size},{load},{folder}"],
        capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, allowed))
    if done.returncode:
        raise SystemExit(done.stderr)
    return tuple(map(float, done.stdout.split()[-2:]))


def main(_):
    values = flags.FLAGS
    if values.one:
        way, size, load, folder = values.one.split(",")
        print(*measure(way, int(size), int(load), folder, values.seconds, values.batch_size))
        return
    with tempfile.TemporaryDirectory() as folder:
        print("making pictures", flush=True)
        make_data(folder, values.pictures)
        most = len(os.sched_getaffinity(0))
        tasks = [(way, sizes, cores) for cores in sorted({1, min(2, most)}) for sizes in SIZES
                 for way in WAYS]
        rates = {task: [] for task in tasks}
        for number in range(values.rounds):
            for task in tasks:  # in turn: what disturbs the machine disturbs all alike
                rates[task].append(run(task, folder, values))
            print(f"round {number + 1} of {values.rounds}", flush=True)
    table(rates, values)


def table(rates, values):
    """Prints the medians. The share is of all cores' time in a step, which is what training loses
    when it needs every core itself."""
    out = io.StringIO()
    out.write("cores  size  way     pictures/s (range)        of bare  CPU ms/picture  share\n")
    for (way, (size, load), cores), found in rates.items():
        rate = statistics.median(r for r, _ in found)
        low, high = min(r for r, _ in found), max(r for r, _ in found)
        cpu = statistics.median(c for _, c in found)
        # round by round, since the machine's speed differs from one to the next
        bare = statistics.median(r / b for (r, _), (b, _) in zip(
            found, rates["bare", (size, load), cores]))
        share = cpu * values.batch_size / (values.step_seconds * cores)
        out.write(f"{cores:5d}  {size:4d}  {way:7s} {rate:8.0f} ({low:.0f} to {high:.0f})".ljust(52)
                  + f"{bare:6.2f}  {1000 * cpu:14.3f}  {share:6.1%}\n")
    print(out.getvalue(), end="")


if __name__ == "__main__":
    app.run(main)
