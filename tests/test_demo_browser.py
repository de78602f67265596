"""The page of `demo` in a real browser."""

import io
import shutil
import urllib.request

import numpy as np
import pytest
from PIL import Image
from test_demo import HOSTILE, free_port, pages

from stackgan_tf import demo
from stackgan_tf.generate import Generator


@pytest.fixture(scope="module")
def page(demo_root):
    return demo.of_run(demo_root, "both")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Headless Chromium, which reaches this machine only."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install -e '.[test]'")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update",
                 "--window-size=1280,1600", f"--user-data-dir={tmp_path_factory.mktemp('user')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield opened
    opened.quit()


class Visitor:
    """Looks at a page and uses it as a person does."""

    def __init__(self, browser, address):
        self.browser, self.address = browser, address
        browser.get(address)

    def until(self, look, what):
        """What `look` returns, as soon as it is true."""
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait
        return WebDriverWait(self.browser, 20, 0.1, [WebDriverException]).until(
            lambda _: look(), what)

    def find(self, selector):
        return self.browser.find_elements("css selector", selector)

    def click(self, selector):
        self.until(lambda: self.find(selector)[0].click() or True, f"{selector} to click")

    def type(self, selector, text):
        box, = self.find(f"{selector} textarea")
        box.clear()
        box.send_keys(text)

    def sources(self, selector):
        return [picture.get_attribute("src") for picture in self.find(f"{selector} img")]

    def pictures(self, selector, count):
        """The pixels of `count` pictures that a gallery shows, once they are loaded."""
        loaded = ("return [...document.querySelectorAll(arguments[0] + ' img')]"
                  ".filter(one => one.complete && one.naturalWidth).length")
        self.until(lambda: self.browser.execute_script(loaded, selector) == count,
                   f"{count} pictures in {selector}")
        shown = []
        for source in self.sources(selector):
            with urllib.request.urlopen(source, timeout=20) as answer:
                shown.append(np.asarray(Image.open(io.BytesIO(answer.read()))))
        return np.stack(shown)

    def new_pictures(self, selector, count, action):
        """`pictures` after an action that changes them."""
        before = self.sources(selector)
        action()
        self.until(lambda: not set(before) & set(self.sources(selector)), "other pictures")
        return self.pictures(selector, count)


def test_a_visitor_draws_walks_and_compares(page, demo_root, browser, tmp_path):
    blocks = page.launch("127.0.0.1", free_port(), prevent_thread_lock=True)
    visitor, generator = Visitor(browser, blocks.local_url), Generator(demo_root, "both")

    def expect(caption, stage=None, seed=0):
        return generator.generate([caption] * 4, range(seed, seed + 4), stage)

    # it opens with pictures of its first example
    first = page.examples[0]
    np.testing.assert_array_equal(visitor.pictures("#stage2", 4), expect(first))
    np.testing.assert_array_equal(visitor.pictures("#stage1", 4), expect(first, 1))
    # a caption is typed
    visitor.type("#caption", "a bad cab")
    made = visitor.new_pictures("#stage2", 4, lambda: visitor.click("#draw"))
    np.testing.assert_array_equal(made, expect("a bad cab"))
    made = visitor.new_pictures("#stage2", 4, lambda: visitor.click("#more"))
    np.testing.assert_array_equal(made, expect("a bad cab", seed=4))
    # a hostile one is text
    text = HOSTILE.replace("\0", "").replace("\n", " ")
    visitor.type("#caption", text)
    made = visitor.new_pictures("#stage2", 4, lambda: visitor.click("#draw"))
    np.testing.assert_array_equal(made, expect(text, seed=4))
    assert browser.title == "StackGAN: both" and not visitor.find('img[src="x"]')
    # an empty one is said
    visitor.type("#caption", " ")
    visitor.click("#draw")
    visitor.until(lambda: "the caption is empty" in visitor.find("body")[0].text, "the message")
    # an example is clicked
    made = visitor.new_pictures("#stage2", 4, lambda: visitor.click("#examples button"))
    np.testing.assert_array_equal(made, expect(first, seed=4))
    # the walk, to another caption
    visitor.type("#goal", "dad")
    visitor.click("#walk")
    strip = visitor.pictures("#walk-strip", 8)
    assert (strip[0] == expect(first, seed=4)[0]).all()
    assert (strip[-1] == expect("dad", seed=4)[0]).all()
    assert visitor.sources("#walk-animation")[0].startswith("data:image/webp;base64,")
    # the neighbors
    visitor.click("button[role=tab]:nth-of-type(2)")
    visitor.click("#nearest")
    rows = visitor.pictures("#neighbors", 4 * (1 + pages.NEIGHBORS))
    np.testing.assert_array_equal(rows[::1 + pages.NEIGHBORS], expect(first, seed=4))

    assert browser.save_screenshot(str(tmp_path / "page.png"))
    assert np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).std() > 10
    asked = browser.execute_script(
        "return performance.getEntriesByType('resource').map(one => one.name)")
    assert asked and all(url.startswith((blocks.local_url, "data:", "blob:")) for url in asked)
    severe = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert not severe
    blocks.close()
