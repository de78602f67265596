"""A served run, asked through TensorFlow Serving's REST interface; no TensorFlow is needed here.

The signatures are those of `export`; requests go row by row, which is Serving's compact form:
https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterable, Sequence

import numpy as np

from stackgan_tf import images, picture_files
from stackgan_tf.config import UserError
from stackgan_tf.knobs import Knobs

EXAMPLE = "http://localhost:8501/v1/models/flowers"
ADDRESS = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?/v1/models/[^\s/:?#]+"
                     r"(/versions/\d+|/labels/[^\s/:?#]+)?")
TIMEOUT_SECONDS = 60
ROWS = 4  # pictures asked for as floats at a time: one of 256x256 takes 2 MB of JSON


class ServedGenerator:
    """What `generate.Generator` is for a run on disk, as far as it is served.

    Args:
        address: http://HOST:8501/v1/models/NAME, or one version or label of it.

    Attributes:
        run: the address.
        text: whether it reads captions.
        stages: those that it draws; (1,) also where it is not known which one that is.
        knobs: those that can be turned: none.
        walks: whether noise and embeddings are served, which `latents` and `decode` need.

    Raises:
        UserError: nothing answers there, or not with a model of `export` that draws from
            captions or from noise alone.
    """

    def __init__(self, address: str):
        self.run = address.strip().rstrip("/").removesuffix(":predict")
        if not ADDRESS.fullmatch(self.run):
            raise UserError(f"--server={address} is no address of a served model; it looks like "
                            f"{EXAMPLE}")
        self._signatures = self._read_signatures()
        inputs = self._signatures.get("serving_default", ({}, {}))[0]
        if "embeddings" in inputs:
            raise UserError(f"--server={self.run} draws from embeddings, not from captions: its "
                            "run has no text encoder; show it with --run instead.")
        if not {"seeds"} <= set(inputs) <= {"seeds", "captions"}:
            raise UserError(f"--server={self.run} is no model of stackgan_tf.export: its "
                            f"serving_default reads {', '.join(sorted(inputs)) or 'nothing'}, not "
                            "captions and seeds.")
        self.text = "captions" in inputs
        self.stages = (1, 2) if "stage1_and_stage2" in self._signatures else (1,)
        self._decoder = "from_embeddings" if self.text else "from_noise"
        self.knobs = ()
        self.walks = {"latents", self._decoder, *["embed"] * self.text} <= set(self._signatures)

    def draw_stages(self, captions: Sequence[str] | None, seeds: Sequence[int],
                    **knobs: float) -> dict[int, np.ndarray]:
        """{stage: uint8 (N, H, W, 3)}, as `Generator.draw_stages`."""
        self.check_knobs(Knobs(**knobs).turned())
        rows = [{"seeds": int(seed)} for seed in seeds]
        if self.text:
            rows = [{**row, "captions": caption} for row, caption in
                    zip(rows, captions, strict=True)]
        if self.stages == (1,):
            made = self._predict("serving_default", rows)
            return {1: self._pictures(made, "image_bytes")}
        made = self._predict("stage1_and_stage2", rows)
        return {stage: self._pictures(made, f"stage{stage}_bytes") for stage in self.stages}

    def latents(self, seeds: Sequence[int], **knobs: float) -> dict[str, np.ndarray]:
        """{name: float32 (N, dim)}, as `Generator.latents`, by the knobs of the export."""
        self.check_knobs(Knobs(**knobs).turned())
        made = self._predict("latents", [{"seeds": int(seed)} for seed in seeds])
        return {name: self._floats(rows, 2) for name, rows in made.items()}

    def embed(self, captions: Sequence[str], **knobs: float) -> np.ndarray:
        """float32 (N, dim), likewise."""
        self.check_knobs(Knobs(**knobs).turned())
        made = self._predict("embed", [{"captions": caption} for caption in captions])
        return self._floats(made["embeddings"], 2)

    def decode(self, inputs: dict[str, np.ndarray], embeddings: np.ndarray | None,
               stage: int | None = None) -> np.ndarray:
        """Pictures uint8 (N, H, W, 3) of the highest stage, as `Generator.decode`."""
        if stage not in (None, self.stages[-1]):
            raise UserError(f"Stage-{'I' * stage} alone is not served from numbers.")
        if embeddings is not None:
            inputs = {**inputs, "embeddings": embeddings}
        rows = [{name: values[i].tolist() for name, values in inputs.items()}
                for i in range(len(inputs["noise"]))]
        made = [self._floats(self._predict(self._decoder, rows[i:i + ROWS])["images"], 4)
                for i in range(0, len(rows), ROWS)]
        return images.to_uint8(np.concatenate(made))

    def check_knobs(self, names: Iterable[str]) -> None:
        """UserError if any is to be turned."""
        for name in names:
            raise UserError(f"a served model draws as it was exported (--{name} of "
                            "stackgan_tf.export).")

    def _read_signatures(self):
        """{name: ({input: ...}, {output: ...})}"""
        answer = self._ask("/metadata")
        try:
            found = answer["metadata"]["signature_def"]["signature_def"]
            return {name: (dict(one.get("inputs", {})), dict(one.get("outputs", {})))
                    for name, one in found.items() if not name.startswith("__")}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._strange() from error

    def _predict(self, signature, rows):
        """{output: its value of each row}"""
        answer = self._ask(":predict", {"signature_name": signature, "instances": rows})
        names = list(self._signatures[signature][1])
        try:
            found = answer["predictions"]
            if len(found) != len(rows):
                raise ValueError(f"{len(found)} rows")
            # a single output comes without its name
            return ({names[0]: found} if len(names) == 1 else
                    {name: [row[name] for row in found] for name in names})
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange() from error

    def _pictures(self, made, name):
        try:
            return np.stack([picture_files.read_rgb(base64.b64decode(one["b64"]))
                             for one in made[name]])
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange() from error

    def _floats(self, rows, rank):
        try:
            found = np.asarray(rows, np.float32)
        except (TypeError, ValueError) as error:
            raise self._strange() from error
        if found.ndim != rank or not np.isfinite(found).all():
            raise self._strange()
        return found

    def _ask(self, what, body=None):
        request = urllib.request.Request(
            self.run + what, None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise UserError(f"--server={self.run} answers {error.code}: {_reason(error)}"
                            ) from error
        except OSError as error:
            raise UserError(f"--server={self.run}: nothing answers there "
                            f"({getattr(error, 'reason', None) or error}); start TensorFlow "
                            "Serving, or mend the address.") from error
        except (ValueError, http.client.HTTPException) as error:
            raise self._strange() from error

    def _strange(self):
        return UserError(f"--server={self.run} answers, but not as TensorFlow Serving's REST port "
                         "does (8501 by default; 8500 speaks gRPC); mend the address.")


def _reason(error: urllib.error.HTTPError) -> str:
    """What the server says is wrong, in one line."""
    try:
        text = str(json.load(error)["error"])
    except (OSError, KeyError, TypeError, ValueError, http.client.HTTPException):
        text = str(error.reason)
    return " ".join(text.split())[:300]
