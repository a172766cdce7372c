"""Writes the graphs of the networks that read numbers for ONNX Runtime, which workers use.

A graph has no weights, so it changes only if the network's form does. The answers differ from
torch's by rounding only.
"""

import operator
from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, helper
from torch import Tensor, fx, nn

from digitq.worker.learning.columns import Columns, Expert, fold
from training.detector import Detector

OPSET, IR_VERSION = 17, 8  # the versions of ONNX; any ONNX Runtime that digitq can use has them

GRAPHED: dict[str, type[nn.Module]] = {"detector": Detector, "columns": Columns, "expert": Expert}

LIKE_TORCH = {  # how a picture of features is enlarged
    "mode": "nearest",
    "nearest_mode": "floor",
    "coordinate_transformation_mode": "asymmetric",
}


def write_graphs(out: Path) -> None:
    """Write the graphs of the networks that read numbers."""
    for name, make in GRAPHED.items():
        content = to_onnx(fold(make())).SerializeToString(deterministic=True)
        (out / f"{name}.onnx").write_bytes(content)


def to_onnx(network: nn.Module) -> ModelProto:
    """The network as a graph of ONNX, whose weights are elsewhere, by their names.

    Raises `TypeError` for a step that is not known here.
    """
    nodes, ends = [], []
    for step in fx.symbolic_trace(network).graph.nodes:
        inputs = [value.name for value in step.args if isinstance(value, fx.Node)]
        if len(inputs) < len(step.args) or step.kwargs:
            raise TypeError(f"there is no form of {step.format_node()} in ONNX")
        if step.op in ("placeholder", "output"):
            (name,) = inputs or [step.name]
            # If the sides have names, ONNX Runtime sees which features are of one size, and adds
            # them inside a convolution that is not dilated.
            shape = ["n", "c", "h", "w"] if step.op == "placeholder" else None
            ends.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        else:
            nodes += to_nodes(network, step, inputs)
    weights = [name_weight(name, value) for name, value in network.state_dict().items()]
    graph = helper.make_graph(nodes, "network", ends[:1], ends[1:], weights)
    opset = helper.make_opsetid("", OPSET)
    return helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)


def name_weight(name: str, value: Tensor) -> TensorProto:
    """A weight by its name and its shape: whoever uses the graph gives the values."""
    weight = TensorProto(name=name, dims=value.shape, data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="given")
    return weight


def to_nodes(network: nn.Module, step: fx.Node, inputs: list[str]) -> list[NodeProto]:
    """One step of the network."""
    outputs = [step.name]
    if step.target is operator.add:
        return [helper.make_node("Add", inputs, outputs)]
    name, modules = str(step.target), dict(network.named_modules())
    module = modules.get(name) if step.op == "call_module" else None
    if isinstance(module, nn.ReLU):
        return [helper.make_node("Relu", inputs, outputs)]
    if isinstance(module, nn.Identity):
        return [helper.make_node("Identity", inputs, outputs)]
    if (
        isinstance(module, nn.Conv2d | nn.ConvTranspose2d)
        and module.padding_mode == "zeros"
        and isinstance(module.padding, tuple)
        and not any(module.output_padding)
    ):
        node = helper.make_node(
            type(module).__name__.removesuffix("2d"),
            inputs + [f"{name}.{part}" for part, _ in module.named_parameters()],
            outputs,
            strides=module.stride,
            pads=module.padding * 2,
            dilations=module.dilation,
            group=module.groups,
        )
        return [node]
    constant = f"{step.name}_constant"
    if isinstance(module, nn.Upsample) and (module.mode, module.size) == ("nearest", None):
        factors = [1.0, 1.0, module.scale_factor, module.scale_factor]
        return [
            helper.make_node("Constant", [], [constant], value_floats=factors),
            helper.make_node("Resize", [*inputs, "", constant], outputs, **LIKE_TORCH),
        ]
    raise TypeError(f"there is no form of {step.format_node()} in ONNX")
