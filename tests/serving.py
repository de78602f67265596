"""A small stand-in for TensorFlow Serving, which no package index has.

It loads as Serving does (the v1 session is the C++ loader), speaks its gRPC protos and its REST
format (https://www.tensorflow.org/tfx/serving/api_rest), and joins requests into batches.
"""

import base64
import json
import os
import queue
import re
import threading
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)


class Model:
    """The newest version in a folder of versions, in a session of its own."""

    def __init__(self, base):
        self.name = os.path.basename(base)
        self.version = max(int(name) for name in os.listdir(base) if name.isdigit())
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            meta = tf.compat.v1.saved_model.load(self.session, ["serve"],
                                                 os.path.join(base, str(self.version)))
        self.signatures = meta.signature_def

    def predict(self, signature_name, feeds):
        """{input: array} -> {output: array}."""
        signature = self.signatures[signature_name or "serving_default"]
        if set(feeds) != set(signature.inputs):
            raise ValueError(f"inputs are {sorted(signature.inputs)}, not {sorted(feeds)}")
        return self.session.run(
            {name: info.name for name, info in signature.outputs.items()},
            {signature.inputs[name].name: value for name, value in feeds.items()})


class Batching:
    """Joins requests that wait at the same time, as --enable_batching does.

    Attributes:
        sizes: rows of each batch that was run, with those that only fill it up.
    """

    def __init__(self, model, allowed=(4, 8), wait=0.3):
        self.model, self.allowed, self.wait, self.sizes = model, allowed, wait, []
        self.waiting = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def predict(self, signature_name, feeds):
        done = futures.Future()
        self.waiting.put((signature_name, feeds, done))
        return done.result(60)

    def _run(self):
        while True:
            tasks = [self.waiting.get()]
            rows = len(next(iter(tasks[0][1].values())))
            try:
                while rows < self.allowed[-1]:
                    tasks.append(self.waiting.get(timeout=self.wait))
                    rows += len(next(iter(tasks[-1][1].values())))
            except queue.Empty:
                pass
            size = min(n for n in self.allowed if n >= rows)
            feeds = {name: np.concatenate([task[1][name] for task in tasks] +
                                          [tasks[0][1][name][:1]] * (size - rows))
                     for name in tasks[0][1]}
            self.sizes.append(size)
            outputs, first = self.model.predict(tasks[0][0], feeds), 0
            for _, inputs, done in tasks:
                last = first + len(next(iter(inputs.values())))
                done.set_result({name: value[first:last] for name, value in outputs.items()})
                first = last


class Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, model):
        self.model = model

    def Predict(self, request, context):
        try:
            outputs = self.model.predict(
                request.model_spec.signature_name,
                {name: tf.make_ndarray(value) for name, value in request.inputs.items()})
        except (ValueError, tf.errors.InvalidArgumentError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        response = predict_pb2.PredictResponse()
        for name, value in outputs.items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(value))
        return response


def start_grpc(model):
    """(server, stub)"""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Grpc(model), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    return server, prediction_service_pb2_grpc.PredictionServiceStub(
        grpc.insecure_channel(f"localhost:{port}"))


def start_rest(model):
    """(server, address)"""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            known = re.fullmatch(r"/v1/models/(\w+)(?:/versions/(\d+))?/metadata", self.path)
            if known and known[1] == model.name and known[2] in (None, str(model.version)):
                self.answer(200, rest_metadata(model))
            else:
                self.answer(404, {"error": f"Could not find any versions of {self.path}"})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            path = re.fullmatch(r"/v1/models/(\w+)(?:/versions/(\d+))?:predict", self.path)
            try:
                if not path or path[1] != model.name or path[2] not in (None, str(model.version)):
                    raise ValueError(f"{self.path} is no model of this server")
                status, answer = 200, rest_predict(model, body)
            except (ValueError, tf.errors.InvalidArgumentError) as error:
                status, answer = 400, {"error": str(error)}
            self.answer(status, answer)

        def answer(self, status, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("localhost", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://localhost:{server.server_port}/v1/models/{model.name}"


def rest_metadata(model):
    """As http_rest_api_util.cc writes it: names as in the proto, 64-bit numbers as strings."""
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=model.signatures)
    return {"model_spec": {"name": model.name, "signature_name": "", "version": str(model.version)},
            "metadata": {"signature_def": json_format.MessageToDict(
                signatures, preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True)}}


def rest_predict(model, body):
    """The documented JSON of a request, by rows ("instances") or columns ("inputs"), answered."""
    name = body.get("signature_name", "serving_default")
    inputs = model.signatures[name].inputs
    (only,) = inputs if len(inputs) == 1 else (None,)
    if "instances" in body:
        rows = [row if isinstance(row, dict) and set(row) != {"b64"} else {only: row}
                for row in body["instances"]]
        columns = {key: [row[key] for row in rows] for key in inputs}
    else:
        columns = body["inputs"] if isinstance(body["inputs"], dict) else {only: body["inputs"]}
    outputs = model.predict(name, {
        key: np.array([decoded(value) for value in values],
                      tf.dtypes.as_dtype(inputs[key].dtype).as_numpy_dtype)
        for key, values in columns.items()})
    outputs = {key: [encoded(key, value) for value in values] for key, values in outputs.items()}
    (only,) = outputs if len(outputs) == 1 else (None,)
    if "instances" not in body:
        return {"outputs": outputs[only] if only else outputs}
    count = len(next(iter(outputs.values())))
    return {"predictions": [outputs[only][i] if only else {k: v[i] for k, v in outputs.items()}
                            for i in range(count)]}


def decoded(value):
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value


def encoded(name, value):
    """Strings of an output go out as text, unless its name ends in _bytes."""
    if not isinstance(value, bytes):
        return value.tolist()
    return {"b64": base64.b64encode(value).decode()} if name.endswith("_bytes") else value.decode()
