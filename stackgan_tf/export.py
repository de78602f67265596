"""Joins the parts of a run into one SavedModel for TensorFlow Serving: captions in, PNGs out.

    python -m stackgan_tf.export --run=mine --output=serving/flowers
    docker run -p 8501:8501 -v $PWD/serving/flowers:/models/flowers -e MODEL_NAME=flowers \
        tensorflow/serving

It lands in serving/flowers/1, the next one in serving/flowers/2, which a running server takes over
by itself; nothing is written over. It takes seconds.

| signature | |
|---|---|
| serving_default | captions: string [N], seeds: int64 [N] -> image_bytes: string [N], PNG |
| stage1_and_stage2 | the same -> stage1_bytes, stage2_bytes |
| mean | the same -> image_bytes, with epsilon 0 in the conditioning augmentation |
| embed | captions -> embeddings: float [N, dim] |
| latents | seeds -> noise, epsilon: float [N, dim], the random numbers of those seeds |
| from_embeddings | embeddings, noise, epsilon -> images: float [N, H, W, 3] in [-1, 1] |

A run that has no Stage-II yet gives Stage-I's pictures and no stage1_and_stage2. Where a run reads
the embeddings of its data, embeddings [N, dim] take the place of captions; where it was trained
without text they are left out, and from_embeddings is called from_noise.

A picture is a function of its caption and seed alone, in whatever batch it is drawn, and shows
what `sample` draws on the same machine: picture i of --seed=s has the seed s + i. --truncation,
--epsilon_scale and --text_strength are fixed here; `embed` and `latents` hold them.
"""

import dataclasses
import os
import shlex
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import flags

from stackgan_tf import build, checkpoint, disk, latents, saved_parts
from stackgan_tf.config import Config, UserError, define_flags, given_flags, run_cli
from stackgan_tf.generate import Generator, encode_png
from stackgan_tf.knobs import HELP, MOST, NAMES, Knobs, is_value
from stackgan_tf.messages import reason
from stackgan_tf.progress import sigterm_raises
from stackgan_tf.run_folder import Part, refuse_unwritable

PRECISIONS = {"float32": "float32", "bfloat16": "mixed_bfloat16"}
WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")  # TF Serving's name for it
MOST_VERSION = 2**63 - 1  # TF Serving reads it as int64
CAPTION = "a flower"  # of the warm-up
MOST_ROUNDING = 0.01  # of pixels from -1 to 1 on average, between one machine and another


def main(_):
    values, given = flags.FLAGS, given_flags()
    with sigterm_raises():
        export_run(given.get("checkpoint_dir", Config.checkpoint_dir), given.get("run", Config.run),
                   values.output, values.version, values.precision, values.batch_size,
                   values.constant_weights,
                   **{name: values[name].value for name in NAMES})


def export_run(checkpoint_dir: str, run: str, output: str, version: int | None = None,
               precision: str | None = None, batch_size: int | None = None,
               constant_weights: bool = False, **knobs: float) -> str:
    """Writes the served model of a run, complete or not at all; returns its folder.

    Args:
        output: folder of all versions.
        version: None takes the next free one.
        precision: of the convolutions, "float32" or "bfloat16"; None: as trained, as `sample`.
        batch_size: so many pictures are drawn at a time, whatever the size of a request; None:
            generate.Generator.batch_size.
        constant_weights: see saved_parts.with_constants.
        knobs: fields of Knobs.
    """
    if not output:
        raise UserError("say where the versions of the served model are kept: --output=FOLDER")
    for name, value in knobs.items():
        if not is_value(value):  # a flag's bounds let nan through
            raise UserError(f"--{name}={value} is no number of at least 0 and at most {MOST:g}.")
    output = os.path.expanduser(output)
    refuse_unwritable(output, "--output")
    generator = Generator(checkpoint_dir, run)
    final = version_folder(output, version)
    functions, networks = in_precision(generator, checkpoint_dir, precision)
    generator.generate(*example(generator), **knobs)  # UserError if it draws no finite picture
    if constant_weights:
        functions, networks = in_constants(functions, generator.saved.inputs), []
    model = ServedModel(generator, functions, Knobs(**knobs), batch_size or generator.batch_size)
    endpoints = model.endpoints()
    disk.remove_orphans(output)
    temporary = disk.own_folder(final)  # no number: not served
    try:
        encoder = [generator.encoder.loaded] if generator.encoder else []
        checkpoint.export(temporary, [*encoder, *networks], endpoints,
                          generator.step)
        write_warmup(os.path.join(temporary, WARMUP), endpoints)
        while version is None and tf.io.gfile.exists(final):  # another export has been faster
            final = version_folder(output, None)
        checkpoint.publish(temporary, final)
    finally:
        for left in (temporary, temporary + ".tmp"):  # the second: stopped while it was written
            if tf.io.gfile.exists(left):
                tf.io.gfile.rmtree(left)
    report(final, generator, endpoints)
    return final


def version_folder(output: str, version: int | None) -> str:
    """The folder of a version that is not there yet."""
    try:
        names = [name.rstrip("/") for name in tf.io.gfile.listdir(output)] if (
            tf.io.gfile.exists(output)) else []
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"--output={output} is no folder that can be read: {reason(error)}; give "
                        "another.") from error
    taken = [int(name) for name in names if name.isdecimal() and int(name) <= MOST_VERSION]
    if version in taken:
        raise UserError(f"--version={version} is in {output} already and is not written over; "
                        f"leave --version out for {max(taken) + 1}.")
    free = version or max(taken, default=0) + 1
    if free > MOST_VERSION:
        raise UserError(f"--output={output} holds the version {max(taken)}, behind which none can "
                        "come; give --version.")
    return os.path.join(output, str(free))


def in_precision(generator: Generator, checkpoint_dir: str, precision: str | None
                 ) -> tuple[dict[int, Callable], list]:
    """({stage: inputs -> images}, what an export of these must track)."""
    if precision is None:
        return ({stage: by_name(function) for stage, function in generator.functions.items()},
                [generator.saved.loaded])
    if generator.stage == 1:
        stage1 = build.from_saved(stored_config(generator.part, precision), generator.saved)
        check_same(generator.part, generator.saved)
        return {1: lambda inputs: stage1(inputs)["images"]}, [stage1]
    path, folder = below(generator, checkpoint_dir)
    frozen, config = saved_parts.Stage1(path), stored_config(folder, precision)
    if config.stage != 1:
        raise UserError(f"--precision={precision} builds the networks anew, which is for a "
                        f"Stage-II on a Stage-I, not on another Stage-II ({path}); leave "
                        "--precision out.")
    stage1 = build.from_saved(config, frozen)
    stage2 = build.from_saved(stored_config(generator.part, precision), generator.saved, frozen)

    def sketch(inputs):
        return stage1(inputs)["images"]

    check_same(folder, frozen)
    check_same(generator.part, generator.saved, frozen)
    return ({1: sketch, 2: lambda x: stage2({**x, "stage1_images": sketch(x)})["images"]},
            [stage1, stage2])


def check_same(part: Part, saved: saved_parts.SavedPart, below: saved_parts.Stage1 | None = None
               ) -> None:
    """UserError if a network built anew by a part's settings does not draw what its SavedModel
    does: another training may have put its config.json in the place of the one's."""
    network, rng = build.from_saved(part.config(), saved, below), np.random.default_rng(0)
    inputs = {name: tf.constant(rng.standard_normal((2, spec.shape[1])), tf.float32)
              for name, spec in saved.inputs.items()}
    expected = by_name(saved.function)(inputs)
    if below is not None:
        inputs["stage1_images"] = below(inputs)
    made = tf.function(network)(inputs)["images"]  # as a graph, which is rounded as the other is
    if np.abs(made - expected).mean() > MOST_ROUNDING:
        raise UserError(f"{part.settings} is not of the weights that this run was trained to, so "
                        "they cannot be built anew; leave --precision out.")


def in_constants(functions: dict[int, Callable], inputs: dict) -> dict[int, Callable]:
    """The functions of `in_precision` with their weights as constants."""
    def constant(function):
        called = tf.function(lambda x: {"images": function(x)}, autograph=False)
        frozen = saved_parts.with_constants(called.get_concrete_function(inputs))
        return lambda x: frozen(x)["images"]

    return {stage: constant(function) for stage, function in functions.items()}


def by_name(function) -> Callable:
    """A loaded signature as a function of a dict that may hold more than it reads."""
    names = function.structured_input_signature[1]
    return lambda inputs: function(**{name: inputs[name] for name in names})["images"]


def below(generator: Generator, checkpoint_dir: str) -> tuple[str, Part]:
    """The Stage-I in a Stage-II: its SavedModel and the part that has its config.json."""
    own = Part(checkpoint_dir, generator.run, "stage1")
    kept = Part(generator.part.path, "", "stage1")  # training's copy; an import makes none
    path = kept.path if tf.io.gfile.exists(kept.path) else own.saved_model
    if tf.io.gfile.exists(kept.settings):  # not by older versions
        return path, kept
    given = (generator.part.read_config() or {}).get("stage1")
    return path, Part(os.path.dirname(given.rstrip("/")), "", "") if given else own


def stored_config(part: Part, precision: str) -> Config:
    """A part's settings with --precision in the place of its own; UserError if not known."""
    config = part.config()
    if config is None:
        raise UserError(f"--precision={precision} builds the networks anew, and there is no "
                        f"config.json in {part.path} that says how; leave --precision out.")
    return dataclasses.replace(config, precision=PRECISIONS[precision])


class ServedModel:
    """The endpoints of a run.

    Args:
        functions: {stage: function of a dict of latents and embeddings -> images}.
        knobs, batch_size: as in `export_run`.
    """

    def __init__(self, generator: Generator, functions: dict[int, Callable], knobs: Knobs,
                 batch_size: int):
        self.functions, self.knobs, self.batch_size = functions, knobs, batch_size
        self.text_mean = generator.text_mean
        self.latent_dims, self.encoder = generator.latent_dims, generator.encoder
        self.stage = max(functions)
        self.numbers = {name: tf.TensorSpec([None, spec.shape[1]], tf.float32, name)
                        for name, spec in generator.saved.inputs.items()}
        self.given = {"seeds": tf.TensorSpec([None], tf.int64, "seeds")}
        if self.encoder:
            self.given["captions"] = tf.TensorSpec([None], tf.string, "captions")
        elif generator.text:
            self.given["embeddings"] = self.numbers["embeddings"]

    def endpoints(self) -> dict[str, tuple[Callable, list]]:
        """{name: (function, signature)}, `serving_default` under its other name `serve` first."""
        both = {"stage1_bytes": 1, "stage2_bytes": 2}
        found = {"serve": (self.drawing({"image_bytes": self.stage}), [self.given])}
        if len(self.functions) == 2:
            found["stage1_and_stage2"] = self.drawing(both), [self.given]
        if "epsilon" in self.latent_dims:
            found["mean"] = self.drawing({"image_bytes": self.stage}, mean=True), [self.given]
        if self.encoder:
            found["embed"] = self.embed, [{"captions": self.given["captions"]}]
        found["latents"] = self.draw_latents, [{"seeds": self.given["seeds"]}]
        name = "from_embeddings" if "embeddings" in self.numbers else "from_noise"
        found[name] = (lambda inputs: {"images": self.functions[self.stage](inputs)},
                       [self.numbers])
        return found

    def drawing(self, outputs: dict[str, int], mean: bool = False) -> Callable:
        """The function from what is given to {name: PNGs of a stage, string [N]}."""
        def draw(inputs):
            numbers = self.read(inputs, mean)
            return dict(zip(outputs, self.pictures(numbers, list(outputs.values())), strict=True))

        return draw

    def draw_latents(self, inputs):
        """The random numbers of each seed: {name: float32 [N, dim]}."""
        return self.knobs.scale(latents.draw_each(self.latent_dims, inputs["seeds"]))

    def embed(self, inputs):
        """One caption at a time, as `generate` does: an encoder may pad to its batch's longest."""
        spec = tf.TensorSpec([self.encoder.dim], tf.float32)
        vectors = tf.map_fn(lambda caption: self.encoder(caption[None])[0], inputs["captions"],
                            fn_output_signature=spec)
        return {"embeddings": self.knobs.strengthen(vectors, self.text_mean)}

    def read(self, inputs, mean):
        """What is given, as numbers: {name: float32 [N, dim]}."""
        seeds = inputs["seeds"]
        for name in inputs:
            tf.debugging.assert_equal(tf.shape(inputs[name])[0], tf.shape(seeds)[0],
                                      f"give as many seeds as {name}")
        numbers = self.draw_latents(inputs)
        if mean:
            numbers["epsilon"] = tf.zeros_like(numbers["epsilon"])
        if self.encoder:
            numbers |= self.embed(inputs)
        elif "embeddings" in inputs:
            numbers["embeddings"] = self.knobs.strengthen(inputs["embeddings"], self.text_mean)
        return numbers

    def pictures(self, numbers, stages):
        """PNGs of each of the stages: list of string [N].

        A picture's last bits depend on the batch's size, so that is always the same, see
        generate.BATCH_SIZES; the last batch repeats its rows.
        """
        size, count = self.batch_size, tf.shape(numbers["noise"])[0]
        batches = -(-count // size)
        rows = tf.range(batches * size) % tf.maximum(count, 1)
        numbers = {name: tf.reshape(tf.gather(value, rows), [batches, size, value.shape[1]])
                   for name, value in numbers.items()}
        # one batch after the other bounds the memory of a large request
        made = tf.map_fn(
            lambda batch: [to_png(self.functions[stage](batch)) for stage in stages], numbers,
            parallel_iterations=1, fn_output_signature=[tf.TensorSpec([size], tf.string)] * len(
                stages))
        return [tf.reshape(pngs, [-1])[:count] for pngs in made]


def to_png(images):
    """float [B, H, W, 3] in [-1, 1] -> string [B], rounded as images.to_uint8 does."""
    images = tf.debugging.check_numerics(images, "no finite picture: the generator's weights are "
                                         "not finite, or a row is unlike all of training")
    values = tf.clip_by_value(tf.round((images + 1.0) * 127.5), 0.0, 255.0)
    return encode_png(tf.cast(values, tf.uint8))


def example(generator: Generator):
    """What `Generator.generate` draws a first picture from."""
    if generator.encoder:
        return [CAPTION], [0]
    return tf.zeros([1, generator.embedding_dim]).numpy() if generator.text else None, [0]


def write_warmup(path: str, endpoints: dict) -> None:
    """A request to each endpoint, which TF Serving runs before it takes others: the first one of a
    process is slow."""
    try:
        tf.io.gfile.makedirs(os.path.dirname(path))
        with tf.io.TFRecordWriter(path) as writer:
            for name, (_, [signature]) in endpoints.items():
                writer.write(prediction_log("serving_default" if name == "serve" else name, {
                    name: tf.fill([1] + spec.shape[1:], CAPTION) if spec.dtype == tf.string
                    else tf.zeros([1] + spec.shape[1:], spec.dtype)
                    for name, spec in signature.items()}))
    except (OSError, tf.errors.OpError) as error:
        raise UserError(f"{path} could not be written: {reason(error)}; make room.") from error


def prediction_log(signature_name: str, inputs: dict) -> bytes:
    """tensorflow.serving.PredictionLog, serialized, without the package that defines it.

    The numbers are those of prediction_log.proto, predict.proto and model.proto.
    """
    request = field(1, field(3, signature_name.encode()))  # model_spec { signature_name }
    for name, value in inputs.items():  # inputs: map<string, TensorProto>
        tensor = tf.make_tensor_proto(value).SerializeToString()
        request += field(2, field(1, name.encode()) + field(2, tensor))
    return field(6, field(1, request))  # predict_log { request }


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    found = []
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def report(final: str, generator: Generator, endpoints: dict) -> None:
    if generator.stage == 1:
        print(f"run {generator.run!r} has no Stage-II yet: these are Stage-I's pictures.")
    if generator.text and not generator.encoder:
        print(f"run {generator.run!r} has no text encoder (it was trained on the embeddings of its "
              "data): it is served embeddings, not captions.")
    for name, (_, [signature]) in endpoints.items():
        print(f"{'serving_default' if name == 'serve' else name}({', '.join(sorted(signature))})")
    print(f"{final} is complete.", flush=True)
    folder = os.path.dirname(final)
    if "://" not in folder:
        folder, name = os.path.abspath(folder), os.path.basename(os.path.abspath(folder))
        volume, model = shlex.quote(f"{folder}:/models/{name}"), shlex.quote(f"MODEL_NAME={name}")
        print(f"To serve it:\n    docker run -p 8501:8501 -v {volume} -e {model} "
              "tensorflow/serving", flush=True)


def define_own_flags() -> None:
    define_flags(only=("run", "checkpoint_dir"))
    flags.DEFINE_string("output", "", "folder of all versions of the served model")
    flags.DEFINE_integer("version", None, "number of this one; the next free one if not given",
                         lower_bound=1, upper_bound=MOST_VERSION)
    for name, text in HELP.items():
        flags.DEFINE_float(name, 1.0, text, lower_bound=0.0, upper_bound=MOST)
    flags.DEFINE_enum("precision", None, list(PRECISIONS), "of the convolutions; as trained, if "
                      "not given. float32 for servers whose hardware knows no bfloat16")
    flags.DEFINE_integer("batch_size", None, "pictures drawn at a time, whatever the size of a "
                         "request; as `sample` draws them, if not given. 1 answers a single one "
                         "soonest; its pictures may differ from `sample`'s by rounding",
                         lower_bound=1, upper_bound=1024)
    flags.DEFINE_bool("constant_weights", False, "for CPU servers with --batch_size=1: large "
                      "networks answer sooner, and take much more memory")


if __name__ == "__main__":
    define_own_flags()
    run_cli(main)
