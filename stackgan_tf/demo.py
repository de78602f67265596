"""Shows a trained run as a page in the browser.

    pip install -e '.[demo]'
    python -m stackgan_tf.demo --run=mine                                      # on this machine
    python -m stackgan_tf.demo --server=http://localhost:8501/v1/models/flowers

Type a caption, or click one of the data's: Stage-I's sketches and Stage-II's pictures appear side
by side; below, a walk from one caption, or noise, to another, and the training pictures most like
those drawn. The page is at http://127.0.0.1:7860 for this machine alone; --host=0.0.0.0 shows it
to everybody in the network, without a password. It works offline and reports to nobody.

With --server the pictures come from TensorFlow Serving (see `stackgan_tf.export`), and this process
needs neither TensorFlow nor the run; what a server does not have is left out, and said.
"""

import functools
import importlib.util
import socket
from collections.abc import Sequence

import numpy as np
from absl import flags

from stackgan_tf.config import Config, UserError, define_flags, given_flags, run_cli
from stackgan_tf.messages import printable
from stackgan_tf.served_generator import EXAMPLE, ServedGenerator
from stackgan_tf.what_to_draw import read_captions

EXAMPLES = 6  # captions of the data to click on
MOST_EXAMPLES = 50  # of --captions_file
EMBEDDINGS = 40  # of the data, to choose from


def main(_):
    values, given = flags.FLAGS, given_flags()
    check_gradio()
    check_place(values.host, values.port)
    examples = read_captions((), values.captions_file)[:MOST_EXAMPLES]
    if values.server:
        for name, value in {**given, "data_dir": values.data_dir}.items():
            if value is not None:
                raise UserError(f"--server and --{name}={value} are two places that draw; give "
                                "one of them.")
        page = of_server(values.server, examples)
    else:
        page = of_run(given.get("checkpoint_dir", Config.checkpoint_dir),
                      given.get("run", Config.run), examples, values.data_dir)
    show(page, values.host, values.port)


def of_server(address: str, examples: Sequence[str] = ()):
    """The Page of a served model; nothing here imports TensorFlow."""
    generator = ServedGenerator(address)
    from stackgan_tf.page import Page  # Gradio takes seconds, mistakes need not
    notes = ["Noise and captions are as strong as in the export. The training pictures are not on "
             "the server; the page of the run itself (--run) shows those that are nearest."]
    if not generator.walks:
        notes.append("This model does not serve its latents, which the latent walk needs: export "
                     "the run again.")
    return Page(generator, examples, walks=generator.walks, notes=notes)


def of_run(checkpoint_dir: str, run: str, examples: Sequence[str] = (),
           data_dir: str | None = None):
    """The Page of a run on this machine."""
    # here, since with --server there need be no TensorFlow
    from stackgan_tf import neighbors
    from stackgan_tf.generate import Generator
    generator = Generator(checkpoint_dir, run)
    from stackgan_tf.page import Page
    vectors = None
    if generator.text and not generator.embeds:
        vectors = embeddings_of_data(generator, data_dir)
        examples = list(vectors)[:1]
    elif generator.text and not examples:
        examples = captions_of_data(generator, data_dir)
    notes = [] if len(generator.stages) == 2 else ["This run has no Stage-II yet."]
    return Page(generator, examples, vectors, notes=notes, nearest=functools.partial(
        neighbors.of_run, generator, data_dir=data_dir))


def captions_of_data(generator, data_dir: str | None) -> list[str]:
    """Captions of the split "test", of "train" without one; [], said, where the data is gone."""
    from stackgan_tf.pipeline import text
    try:
        rows = rows_of_data(generator, data_dir, "captions", EXAMPLES)
    except UserError as error:
        print(printable(f"no captions to click on: {error} (--captions_file gives others)"),
              flush=True)
        return []
    return list(dict.fromkeys(text(row["captions"][i % len(row["captions"])])
                              for i, row in enumerate(rows)))


def embeddings_of_data(generator, data_dir: str | None) -> dict[str, np.ndarray]:
    """{label: float32 (dim,)} of a run that has no text encoder."""
    from stackgan_tf.pipeline import text
    try:
        rows = rows_of_data(generator, data_dir, "embeddings", EMBEDDINGS)
        found = {}
        for row in rows:
            vectors, captions = row["embeddings"], row.get("captions", ())
            named = len(captions) == len(vectors)  # else they are not in the same order
            found[text(captions[0] if named else row["file_name"])] = vectors[0]
        dim = len(next(iter(found.values())))
        if dim != generator.embedding_dim:
            raise UserError(f"they have {dim} numbers, not {generator.embedding_dim}")
        return found
    except UserError as error:
        raise UserError(f"run {generator.run!r} was trained on the embeddings of its data and has "
                        "no text encoder, so that it draws from those alone, and they cannot be "
                        f"read: {error}") from error


def rows_of_data(generator, data_dir: str | None, name: str, count: int) -> list[dict]:
    """Up to `count` elements of a run's data that have `name`, of "train" if none is held out."""
    # here, since with --server there need be no TensorFlow
    from stackgan_tf import shown_texts
    config = generator.data_config(data_dir=data_dir)
    first = shown_texts.first_rows(config, 32 * count, name)
    if not first:
        raise UserError(f"--dataset={config.dataset} --data_dir={config.data_dir!r} has no {name}.")
    # at random: data go through their classes in turn, or one after the other
    chosen = np.sort(np.random.default_rng(0).permutation(len(first))[:count])
    return [first[i] for i in chosen]


def check_gradio() -> None:
    if importlib.util.find_spec("gradio") is None:
        raise UserError("the page is made with Gradio, which is not installed: pip install -e "
                        "'.[demo]'")


def check_place(host: str, port: int) -> None:
    """UserError where no page can be shown, before anything is loaded."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the page's server
            probe.bind(place)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host={host} --port={port}: the page cannot be shown there "
                        f"({getattr(error, 'strerror', None) or error}); give another --port, or "
                        "an address of this machine as --host.") from error


def show(page, host: str, port: int) -> None:
    """Serves the page until Ctrl-C."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        print(f"--host={host}: everybody who reaches this machine can draw; there is no password.")
    print(f"http://{host}:{port} shows the page; Ctrl-C ends it.", flush=True)
    page.launch(host, port)


def define_own_flags() -> None:
    define_flags(only=("run", "checkpoint_dir"))
    flags.DEFINE_string("server", "", "draw by TensorFlow Serving instead of a run on this "
                        f"machine: {EXAMPLE}")
    flags.DEFINE_string("host", "127.0.0.1", "address of this machine to show the page at; 0.0.0.0 "
                        "for the whole network")
    flags.DEFINE_integer("port", 7860, "port to show the page at", lower_bound=1, upper_bound=65535)
    flags.DEFINE_string("captions_file", "", "captions to click on, a UTF-8 file, one a line; '': "
                        "some of the run's data")
    flags.DEFINE_string("data_dir", None, "where the training data is now, if it was moved")


if __name__ == "__main__":
    define_own_flags()
    run_cli(main)
