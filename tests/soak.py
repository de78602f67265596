"""A process of its own that asks an exported model again and again and watches its memory.

    python tests/soak.py BASE REQUESTS -> one line of JSON on stdout
"""

import collections
import ctypes
import json
import random
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import serving
import tensorflow as tf

THREADS = 8
CAPTIONS = [
    b"a red flower", b"", b" ", b"a\0b", b"\0", b"x" * 100_000, b"\xff\xfe\x80", b"\xc3",
    b"\xed\xa0\x80",  # half of a surrogate pair
    "🌸🐦👩‍👩‍👧".encode(), ("🌺" * 25_000).encode(), "وردة حمراء‏".encode(), "פרח אדום".encode(),
    "\u202eflower der a".encode(), "赤い花".encode(), "e\u0301\u0327".encode() * 1000,
    b"\r\n\t\x1b[31m", b'{"b64": "AAAA"}', b"../../etc/passwd", b"a red flower" * 1000,
]
SEEDS = [0, 7, -1, 2**63 - 1, -2**63]
SIZES = [1, 1, 1, 2, 3, 7, 8, 9, 16, 20]
SIGNATURES = ["serving_default"] * 5 + ["stage1_and_stage2", "mean", "embed"]


class Asker:
    """Compares each row of each answer with that row's answer alone.

    Attributes:
        count: {what happened: how often}.
    """

    def __init__(self, model):
        self.model, self.count, self.lock = model, collections.Counter(), threading.Lock()
        self.pairs = [(caption, seed) for caption in CAPTIONS for seed in SEEDS]
        self.alone = {name: {pair: self.ask(name, [pair]) for pair in self.pairs}
                      for name in set(SIGNATURES)}

    def feeds(self, name, rows):
        captions, seeds = zip(*rows) if rows else ((), ())
        feeds = {"captions": np.array(captions, object), "seeds": np.array(seeds, np.int64)}
        return {key: feeds[key] for key in self.model.signatures[name].inputs}

    def ask(self, name, rows):
        return self.model.predict(name, self.feeds(name, rows))

    def request(self, number):
        rng = random.Random(number)
        name, count = rng.choice(SIGNATURES), rng.choice(SIZES)
        rows = [rng.choice(self.pairs) for _ in range(0 if rng.random() < 0.03 else count)]
        if name != "embed" and rng.random() < 0.05:
            what = self.refused(name, rows)
        else:
            what = self.compared(name, rows, self.ask(name, rows))
        with self.lock:
            self.count[what] += 1
            self.count["rows"] += len(rows)

    def refused(self, name, rows):
        feeds = self.feeds(name, rows)
        feeds["seeds"] = np.append(feeds["seeds"], 1)  # one seed too many
        try:
            self.model.predict(name, feeds)
        except tf.errors.InvalidArgumentError as error:
            if "give as many seeds as captions" in error.message:
                return "refused"
        return "not refused"

    def compared(self, name, rows, made):
        for key, values in made.items():
            if len(values) != len(rows):
                return "wrong"
            for row, value in zip(rows, values):
                if not np.array_equal(value, self.alone[name][row][key][0]):
                    return "wrong"
        return "right"


def resident():
    """Megabytes that the process has in memory."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


class Heap(ctypes.Structure):
    """mallinfo2 of glibc."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks",
        "fordblks", "keepcost")]


def allocated():
    """Megabytes that were asked of malloc and not given back; 0 where it cannot be asked."""
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):  # not glibc
        return 0.0
    function.restype = Heap
    heap = function()
    return (heap.uordblks + heap.hblkhd) / 2**20


def main(base, requests):
    asker, memory = Asker(serving.Model(base)), []
    with ThreadPoolExecutor(THREADS) as pool:
        for part in range(20):  # a fifth of them to warm up
            numbers = range(part * requests // 20, (part + 1) * requests // 20)
            list(pool.map(asker.request, numbers))
            memory.append((round(resident(), 1), round(allocated(), 1)))
    print(json.dumps({"count": asker.count, "memory": memory}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
