"""A BERT encoder as an ONNX graph, written in memory from the weights of its safetensors file.

The operators of the domain ``com.microsoft`` are ONNX Runtime's own fused ones, which its optimiser would
otherwise have to find: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime as ort  # type: ignore[import-untyped]  # ships no types
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

Vectors: TypeAlias = NDArray[np.float32]

FUSED = "com.microsoft"
SLOW_FUSIONS = ["SkipLayerNormFusion"]
"""Measured with ONNX Runtime 1.32: its fused sum and LayerNormalization takes five times as long as the two."""
SEVEN_BITS = 63
"""The largest quantised weight. With eight bits the 16-bit sums of AVX2 overflow
(https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range")."""


@dataclass(frozen=True)
class Architecture:
    """What ``config.json`` of a BERT model says about its shape."""

    hidden: int
    heads: int
    layers: int
    epsilon: float

    @classmethod
    def read(cls, path: Path) -> Architecture:
        """Read the fields of a Hugging Face ``BertConfig``."""
        config = json.loads(path.read_text(encoding="utf-8"))
        return cls(
            hidden=config["hidden_size"],
            heads=config["num_attention_heads"],
            layers=config["num_hidden_layers"],
            epsilon=config["layer_norm_eps"],
        )


class Encoder:
    """A BERT model that turns token numbers into vectors; calls from several threads at once are fine.

    Methods take ``ids``, int64 of shape ``(texts, tokens)``: all texts of a call have the same length, as nothing is
    padded. Without a mask attention takes its faster way, and no work is done for tokens that are none.
    """

    def __init__(self, folder: Path, *, int8: bool, threads: int) -> None:
        """Load ``config.json`` and ``model.safetensors``.

        Args:
            folder: Of the model.
            int8: Quantise the dense layers: weights now, symmetrically, to 7 bits with a scale per output;
                activations as they come, with one scale for all of a call.
            threads: Cores that one call may use.
        """
        architecture = Architecture.read(folder / "config.json")
        graph = Graph()
        bert = Bert(graph, load_file(folder / "model.safetensors"), architecture, int8=int8)
        hidden = graph.name(bert.write("ids"), "tokens")
        graph.name(_mean(graph, hidden), "embedding")
        self.dimension = architecture.hidden
        model = graph.model(self.dimension).SerializeToString()
        options = _options(threads, graph)
        self._session = ort.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )

    def embed(self, ids: NDArray[np.int64]) -> Vectors:
        """Return the mean of each text's token vectors, scaled to length 1: shape ``(texts, dimension)``."""
        return self._run(["embedding"], ids)[0]

    def embed_tokens(self, ids: NDArray[np.int64]) -> tuple[Vectors, Vectors]:
        """Return what ``embed`` does, and the token vectors: shape ``(texts, tokens, dimension)``."""
        embedding, tokens = self._run(["embedding", "tokens"], ids)
        return embedding, tokens

    def _run(self, names: list[str], ids: NDArray[np.int64]) -> list[Vectors]:
        vectors: list[Vectors] = self._session.run(names, {"ids": ids})
        return vectors


def _options(threads: int, graph: Graph) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting must not cost a core
    values = [ort.OrtValue.ortvalue_from_numpy(values) for values in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), values)
    return options


def _mean(graph: Graph, hidden: str) -> str:
    """Sum over the text's tokens, scaled to length 1; a mean's division would be lost in the scaling."""
    total = graph.op("ReduceSum", hidden, graph.constant([1]), keepdims=0)
    return graph.op("LpNormalization", total, axis=-1, p=2)


class Graph:
    """Collects the nodes and weights of a graph; a value is known by its name."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._tensors: list[onnx.TensorProto] = []
        self._count = 0
        self.weights: dict[str, NDArray[Any]] = {}
        """By name. The model only mentions them, as protobuf would copy them three times over; the session
        copies them once, and they may go when it is made (ONNX Runtime's C API, ``AddExternalInitializers``).
        """

    def weight(self, values: NDArray[Any]) -> str:
        """Add a tensor and return its name."""
        name = self._new()
        self.weights[name] = np.ascontiguousarray(values)
        tensor = onnx.TensorProto(name=name, dims=values.shape, data_location=TensorProto.EXTERNAL)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        tensor.external_data.add(key="location", value="memory")
        self._tensors.append(tensor)
        return name

    def constant(self, values: list[int]) -> str:
        """Add integers, as shapes and axes need them."""
        self._tensors.append(numpy_helper.from_array(np.array(values, np.int64), self._new()))
        return self._tensors[-1].name

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add an operator of one output and return its name; an input left out is an empty string."""
        return self.ops(kind, *inputs, domain=domain, outputs=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, domain: str = "", outputs: int, **attributes: Any) -> list[str]:
        """Add an operator and return the names of its outputs."""
        names = [self._new() for _ in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def name(self, value: str, name: str) -> str:
        """Give a value the name by which callers know it."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        return name

    def model(self, dimension: int) -> onnx.ModelProto:
        """Return the whole, with the inputs and outputs that ``Encoder`` describes."""
        value, rows = helper.make_tensor_value_info, ("texts", "tokens")
        inputs = [value("ids", TensorProto.INT64, rows)]
        outputs = [
            value("embedding", TensorProto.FLOAT, ("texts", dimension)),
            value("tokens", TensorProto.FLOAT, (*rows, dimension)),
        ]
        graph = helper.make_graph(self._nodes, "bert", inputs, outputs, self._tensors)
        versions = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
        return helper.make_model(graph, opset_imports=versions, ir_version=8)

    def _new(self) -> str:
        self._count += 1
        return f"v{self._count}"


class Bert:
    """Writes BERT's encoder (Devlin et al. 2018) into a graph; weights go by their names at Hugging Face."""

    def __init__(
        self,
        graph: Graph,
        weights: Mapping[str, Vectors],
        architecture: Architecture,
        *,
        int8: bool,
    ) -> None:
        self._graph = graph
        self._weights = weights
        self._architecture = architecture
        self._int8 = int8

    def write(self, ids: str) -> str:
        """Return the last layer's token vectors, shape ``(texts, tokens, hidden)``."""
        x = self._embed(ids)
        for layer in range(self._architecture.layers):
            name = f"encoder.layer.{layer}."
            x = self._skip(self._attend(x, name + "attention."), x, name + "attention.output.LayerNorm")
            x = self._skip(self._feed_forward(x, name), x, name + "output.LayerNorm")
        return x

    def _embed(self, ids: str) -> str:
        """Add word, position and type vectors; the type is the first, as for all tokens of a single text."""
        graph, weights = self._graph, self._weights
        words = graph.op("Gather", graph.weight(weights["embeddings.word_embeddings.weight"]), ids)
        count = graph.op("Shape", ids, start=1, end=2)
        first_type = weights["embeddings.token_type_embeddings.weight"][0]
        fixed = weights["embeddings.position_embeddings.weight"] + first_type
        places = graph.op("Slice", graph.weight(fixed), graph.constant([0]), count, graph.constant([0]))
        return self._skip(words, places, "embeddings.LayerNorm")

    def _attend(self, x: str, name: str) -> str:
        parts = [name + f"self.{part}." for part in ("query", "key", "value")]
        weight = np.concatenate([self._weights[part + "weight"] for part in parts])
        bias = np.concatenate([self._weights[part + "bias"] for part in parts])
        q, k, v = self._graph.ops("Split", self._linear(x, weight, bias), outputs=3, axis=-1)
        heads = self._architecture.heads
        y = self._graph.op("MultiHeadAttention", q, k, v, domain=FUSED, num_heads=heads)
        return self._dense(y, name + "output.dense.")

    def _feed_forward(self, x: str, name: str) -> str:
        up = name + "intermediate.dense."
        y = self._linear(x, self._weights[up + "weight"], None)
        y = self._graph.op("BiasGelu", y, self._graph.weight(self._weights[up + "bias"]), domain=FUSED)
        return self._dense(y, name + "output.dense.")

    def _dense(self, x: str, name: str) -> str:
        return self._linear(x, self._weights[name + "weight"], self._weights[name + "bias"])

    def _skip(self, y: str, x: str, name: str) -> str:
        """Add what the layer was given to what it made, and normalise."""
        graph = self._graph
        scale = [graph.weight(self._weights[name + part]) for part in (".weight", ".bias")]
        epsilon = self._architecture.epsilon
        return graph.op("LayerNormalization", graph.op("Add", y, x), *scale, axis=-1, epsilon=epsilon)

    def _linear(self, x: str, weight: Vectors, bias: Vectors | None) -> str:
        """``x`` times the transpose of ``weight``, shape ``(outputs, inputs)``, plus ``bias``."""
        graph, rest = self._graph, [] if bias is None else [self._graph.weight(bias)]
        if self._int8:
            whole, scale = quantise(weight)
            inputs = graph.weight(whole.T), graph.weight(scale), ""
            return graph.op("DynamicQuantizeMatMul", x, *inputs, *rest, domain=FUSED)
        y = graph.op("MatMul", x, graph.weight(weight.T))
        return graph.op("Add", y, *rest) if rest else y


def quantise(weight: Vectors) -> tuple[NDArray[np.int8], Vectors]:
    """Return whole numbers and a scale per row; their product is ``weight`` to 0.8 % of the row's largest."""
    scale = np.abs(weight).max(axis=1) / np.float32(SEVEN_BITS)
    return np.rint(weight / scale[:, None]).astype(np.int8), scale
