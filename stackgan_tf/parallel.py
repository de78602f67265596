"""Reading ahead with a few threads."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor


def in_order(function, items: Iterable) -> Iterator:
    """function(item) of every item by a few threads, in order, with few results waiting."""
    threads = min(8, max(2, os.cpu_count() or 2))
    waiting, items = deque(), iter(items)
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 4 * threads:  # bounds the memory: at most 32 results
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
