"""Networks that ONNX Runtime computes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor

Weights = dict[str, NDArray[np.float32]]  # a network's name is the prefix of its weights' names
Session = Callable[[Tensor], Tensor]


def make_session(graph: Path, weights: Weights) -> Callable[[Tensor], Tensor]:
    """The network whose graph is in a file, with weights by the names that they have there.

    ONNX Runtime computes it on one thread, in half of torch's time for a small picture.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # an exception says what goes wrong
    values = [
        onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value))
        for value in weights.values()
    ]
    options.add_external_initializers([*weights], values)
    session = onnxruntime.InferenceSession(graph.read_bytes(), options, ["CPUExecutionProvider"])
    (parameter,) = session.get_inputs()

    def answer(images: Tensor, weights: object = values) -> Tensor:  # the session has no copy
        (answers,) = session.run(None, {parameter.name: images.numpy()})
        return torch.from_numpy(answers)

    return answer
