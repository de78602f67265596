"""Takes the README's picture of the demo's page, in a real browser.

    pip install -e '.[test]' && apt install chromium chromium-driver      # Debian's names
    python docs/demo_screenshot.py --run=default

It lands in docs/demo.png. A quarter of a minute.
"""

import os
import shutil
import socket
import tempfile
from pathlib import Path

from absl import app, flags
from PIL import Image
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from stackgan_tf import demo

flags.DEFINE_string("checkpoint_dir", "checkpoints", "folder of all runs")
flags.DEFINE_string("run", "default", "name of the run's folder")
flags.DEFINE_string("output", str(Path(__file__).parent / "demo.png"), "the picture")
flags.DEFINE_list("size", "1240,1180", "width and height of the window")

# Without a network but this machine's.
BROWSER = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
           "--disable-background-networking", "--disable-component-update", "--disable-sync"]
LOADED = """return [...document.querySelectorAll(arguments[0] + ' img')]
            .filter(picture => picture.complete && picture.naturalWidth).length"""


def main(_):
    values = flags.FLAGS
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    page = demo.of_run(values.checkpoint_dir, values.run)
    blocks = page.launch("127.0.0.1", port, prevent_thread_lock=True)
    with tempfile.TemporaryDirectory() as profile:
        options = webdriver.ChromeOptions()
        for flag in [*BROWSER, f"--user-data-dir={profile}",
                     f"--window-size={','.join(values.size)}"]:
            options.add_argument(flag)
        browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        browser.get(blocks.local_url)
        for button, shown, count in (("#draw", f"#stage{max(page.generator.stages)}", 4),
                                     ("#walk", "#walk-strip", 8)):
            wait = WebDriverWait(browser, 60)
            found = wait.until(lambda _: browser.find_elements("css selector", button))
            # not its click(): the page's progress may lie over the button
            browser.execute_script("arguments[0].click()", found[0])
            wait.until(lambda _: browser.execute_script(LOADED, shown) == count)
        browser.execute_script("scrollTo(0, 0); document.activeElement.blur()")
        browser.save_screenshot(values.output)
        browser.quit()
    blocks.close()
    # 256 colors take a third of the bytes
    Image.open(values.output).convert("RGB").quantize(256).save(values.output, optimize=True)
    print(f"{values.output}: {os.path.getsize(values.output) / 1000:.0f} kB")


if __name__ == "__main__":
    app.run(main)
