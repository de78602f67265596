"""Where a call's time goes, operation by operation, from TensorFlow's own profiler."""

import os
import tempfile
import time

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2


def record(call, function=None):
    """Profiles one call.

    Args:
        call: a function without arguments.
        function: returns the concrete function behind it, whose graph knows the shapes.

    Returns:
        [(type, name, shape of the output or "", seconds)], longest first, and the seconds that
        passed. Operations run beside each other: theirs may add up to more.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2,
                                                           python_tracer_level=0)
        tf.profiler.experimental.start(folder, options)
        begin = time.perf_counter()
        call()
        passed = time.perf_counter() - begin
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        for root, _, names in os.walk(folder):
            for name in names:
                if name.endswith(".xplane.pb"):
                    with open(os.path.join(root, name), "rb") as file:
                        space.MergeFromString(file.read())
    shapes = _shapes(function()) if function else {}
    seconds = {}
    for plane in space.planes:
        for line in plane.lines:
            for kind, name, own in _operations(plane, line):
                seconds[kind, name] = seconds.get((kind, name), 0.0) + own
    rows = [(kind, name, shapes.get(name, ""), value) for (kind, name), value in seconds.items()]
    return sorted(rows, key=lambda row: -row[3]), passed


def _operations(plane, line):
    """(type, name, seconds of its own) of each operation in a thread's events.

    The profiler calls an operation "name:type". One that runs inside of another, as in a function
    that is called, is taken off the outer one's time.
    """
    events = []
    for event in line.events:
        name, colon, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
        # "::" is in the names of TensorFlow's own C++ functions
        if colon and kind.isidentifier() and not name.endswith(":") and " " not in name:
            events.append((event.offset_ps, -event.duration_ps, kind, name))
    stack, found = [], []  # stack: (end, index in found)
    for start, minus, kind, name in sorted(events):
        while stack and stack[-1][0] <= start:
            stack.pop()
        if stack:
            found[stack[-1][1]][2] += minus / 1e12
        stack.append((start - minus, len(found)))
        found.append([kind, name, -minus / 1e12])
    return found


def _shapes(function):
    return {op.name: "x".join(str(n or "?") for n in op.outputs[0].shape)
            for op in function.graph.get_operations()
            if op.outputs and op.outputs[0].shape.rank is not None}

