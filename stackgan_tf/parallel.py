"""Reading ahead with a few threads."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor


def in_order(function, items: Iterable, threads: int = 0) -> Iterator:
    """function(item) of every item by some threads (0: a few), in order, with few results
    waiting."""
    threads = threads or min(8, max(2, os.cpu_count() or 2))
    waiting, items = deque(), iter(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * threads:  # bounds the memory
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
