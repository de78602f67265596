"""Takes the README's pictures of TensorBoard, with a real browser (Debian: apt install chromium).

    python docs/screenshots.py --logdir=checkpoints

Starts tensorboard on a free port, opens one page after the other in headless Chromium, and writes
docs/tensorboard_<page>.png.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import app, flags
from PIL import Image

flags.DEFINE_string("logdir", "checkpoints", "what tensorboard shows")
flags.DEFINE_string("output", str(Path(__file__).parent), "folder of the pictures")
flags.DEFINE_list("pages", "custom_scalars,hparams,projector", "which")

SIZES = {"custom_scalars": (1200, 760), "hparams": (1200, 500), "projector": (1200, 760)}

# No network but the page's own; WebGL, which the Projector needs, without a graphics card.
BROWSER = ["--headless", "--no-sandbox", "--no-first-run", "--disable-background-networking",
           "--disable-component-update", "--disable-sync", "--disable-quic", "--hide-scrollbars",
           "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
SECONDS = 20  # that a page has to draw itself, on a clock that does not wait for the machine


def main(_):
    values = flags.FLAGS
    browser = shutil.which("chromium")
    if not browser:
        sys.exit("error: there is no chromium here; on Debian: apt install chromium")
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", f"--logdir={values.logdir}", "--port=0"],
        stderr=subprocess.PIPE, text=True)
    try:
        address = next(found[0] for line in server.stderr
                       if (found := re.search(r"http://\S+/", line)))
        for page in values.pages:
            path = os.path.join(values.output, f"tensorboard_{page}.png")
            shoot(browser, f"{address}#{page}", path, SIZES[page])
            print(path)
    finally:
        server.terminate()


def shoot(browser, address, path, size):
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [browser, *BROWSER, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}",
             f"--virtual-time-budget={1000 * SECONDS}", f"--screenshot={path}", address],
            check=True, capture_output=True, timeout=300)
    # 64 colors, which nobody misses here, take a third of the bytes
    Image.open(path).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    app.run(main)
