"""Exports in 8 bits: the network's convolutions are quantized, decoding and suppression never."""

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import onnx

from multibox.data.sample import Dataset, Sample
from multibox.deploy.prepared import PREPARATION
from multibox.detector import Detector
from multibox.evaluation.bootstrap import Comparison, compare
from multibox.evaluation.coco_matches import match_by_class
from multibox.evaluation.evaluate import evaluate
from multibox.files import file_sha256
from multibox.messages import counted, percent
from multibox.report.tables import class_table

if TYPE_CHECKING:
    import openvino

_log = logging.getLogger(__name__)

TIMED = 25
"""Number of times that an image is timed."""

QUANTIZED = (
    "Conv",
    "Relu",
    "Clip",
    "HardSwish",
    "HardSigmoid",
    "Add",
    "Mul",
    "ReduceMean",
    "GlobalAveragePool",
    "MaxPool",
)
"""Operators of the network that compute in 8 bits with ONNX Runtime."""


def quantize_onnx(source: Path, path: Path, inputs: Iterable[np.ndarray]) -> None:
    """Writes an ONNX file with 8-bit weights by channel and unsigned 8-bit activations, in the QDQ form.

    (ONNX Runtime is 1.5 to 3 times slower with signed activations on x86.)

    Args:
        source: The file in single precision.
        path: The file to write.
        inputs: What the file takes, to calibrate on.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    model = onnx.load(source)
    name, network = model.graph.input[0].name, network_nodes(model)
    mark = onnx.StringStringEntryProto(key="onnx.quant.pre_process", value="onnxruntime.quant")
    ready = onnx.ModelProto()
    ready.CopyFrom(model)
    ready.metadata_props.append(mark)  # batch norms are folded already, so that nothing need be warned about

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(inputs)

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch}

    quantize_static(
        ready,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        op_types_to_quantize=list(QUANTIZED),
        nodes_to_exclude=[node.name for node in model.graph.node if node.name not in network],
    )
    quantized = onnx.load(path)
    quantized.metadata_props.remove(mark)
    onnx.save(quantized, path)


def quantize_openvino(
    source: Path, path: Path, samples: Sequence[Sample], as_input: Callable[[Sample], np.ndarray]
) -> None:
    """Writes an OpenVINO file with 8-bit weights by channel and 8-bit activations, as NNCF chooses them.

    Args:
        source: The file in single precision.
        path: The file to write.
        samples: Images to calibrate on. NNCF reads them several times.
        as_input: Makes what the file takes of an image.

    Raises:
        ImportError: NNCF is not installed.
    """
    try:
        import nncf
    except ImportError as error:
        raise ImportError("OpenVINO files in 8 bits need nncf: pip install 'multibox[export]'") from error
    import openvino

    nncf.set_log_level(logging.ERROR)  # it names each operation that it leaves alone
    model = openvino.Core().read_model(source)
    network = _network_operations(model)
    others = [each.get_friendly_name() for each in model.get_ops() if each.get_friendly_name() not in network]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(samples, as_input),
        preset=nncf.QuantizationPreset.MIXED,  # unsigned activations where they are
        subset_size=len(samples),
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
    )
    openvino.save_model(quantized, path, compress_to_fp16=False)


def _network_operations(model: "openvino.Model") -> set[str]:
    """Returns what `network_nodes` returns, of an OpenVINO model."""
    waiting = [each for each in model.get_ops() if each.get_type_name() in ("Convolution", "GroupConvolution")]
    found: set[str] = set()
    while waiting:
        operation = waiting.pop()
        name = operation.get_friendly_name()
        if name not in found and not name.startswith(PREPARATION):
            found.add(name)
            waiting += [value.get_node() for value in operation.input_values()]
    return found


def network_nodes(model: onnx.ModelProto) -> set[str]:
    """Returns the names of the convolutions and of all nodes before one: the network without its decoding.

    What prepares a whole image is left out.
    """
    made_by = {output: node for node in model.graph.node for output in node.output}
    waiting = [node for node in model.graph.node if node.op_type == "Conv"]
    found: set[str] = set()
    while waiting:
        node = waiting.pop()
        if node.name not in found and not node.name.startswith(PREPARATION):
            found.add(node.name)
            waiting += [made_by[name] for name in node.input if name in made_by]
    return found


class Int8Cost(NamedTuple):
    """What 8 bits cost and bring.

    Attributes:
        compared: AP in single precision and in 8 bits, with the intervals of a paired bootstrap.
        images: Number of images that were judged.
        bytes: Size of the file in single precision, and in 8 bits.
        seconds: Median time of an image in single precision, and in 8 bits.
    """

    compared: Comparison
    images: int
    bytes: tuple[int, int]
    seconds: tuple[float, float]

    @property
    def drop(self) -> float:
        """By how much AP50 is lower, as a fraction."""
        return -self.compared.ap50.difference

    def lines(self) -> list[str]:
        """Returns a table of AP in percent, and lines about size and time."""
        compared = self.compared
        rows = {"AP": compared.ap, "AP50": compared.ap50, "AP75": compared.ap75}
        rows |= {f"AP of {name}": each for name, each in compared.per_class.items()}
        head = ["", "fp32", "int8", "difference (95 %)"]
        table = [[name, percent(each.before), percent(each.after), str(each)] for name, each in rows.items()]
        sizes, times = self.bytes, self.seconds
        return [
            *class_table(head, table),
            f"size: {sizes[0] / 1e6:.2f} MB in fp32, {sizes[1] / 1e6:.2f} MB in int8",
            f"time of an image: {1000 * times[0]:.1f} ms in fp32, {1000 * times[1]:.1f} ms in int8, "
            f"{times[0] / times[1]:.1f} times as fast",
        ]


def judge(before: Detector, after: Detector, dataset: Dataset, *, sizes: tuple[int, int]) -> Int8Cost:
    """Compares a file in single precision with the one in 8 bits. In a terminal, a bar shows how far it is.

    Args:
        before: Detector of the file in single precision.
        after: Detector of the file in 8 bits.
        dataset: Images that the file was not calibrated on.
        sizes: Sizes of both files in bytes.
    """
    _log.info("8 bits: judging %s with both files", counted(len(dataset), "image"))
    found = [evaluate(each, dataset, batch_size=1).detections for each in (before, after)]
    _log.info("8 bits: drawing these images anew, many times, for the intervals")
    truths = [sample.truth for sample in dataset]
    matches = [match_by_class(truths, each, dataset.class_names) for each in found]
    compared = compare(*matches, images=len(dataset), class_names=dataset.class_names)
    image = before.prepare_image(dataset[0].image)
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(TIMED):
        for each, laps in zip((before, after), seconds, strict=True):
            start = time.perf_counter()
            each.detect(image)
            laps.append(time.perf_counter() - start)
    return Int8Cost(compared, len(dataset), sizes, (median(seconds[0]), median(seconds[1])))


def check_apart(calibrate: Dataset, judged: Dataset) -> None:
    """Checks that a file in 8 bits can be calibrated on one set and judged by the other.

    Raises:
        ValueError: A set has no images, no image that is judged has an object, or an image is in both, by its content.
    """
    for dataset, purpose in ((calibrate, "calibrate on"), (judged, "judge by")):
        if not len(dataset):
            raise ValueError(f"{dataset.name} has no images to {purpose}; choose another split")
    if all(sample.truth.crowd.all() for sample in judged):
        raise ValueError(
            f"no image of {judged.name} has an object, so there is no AP to judge by; choose another split"
        )
    known = {_fingerprint(sample): sample for sample in calibrate}
    for sample in judged:
        if (twin := known.get(_fingerprint(sample))) is not None:
            raise ValueError(
                f"{_place(sample)} is judged, but it is the same image as {_place(twin)}, which is calibrated on; "
                "choose splits without a common image"
            )


def _place(sample: Sample) -> str:
    """Returns the path of an image, or its name if it is in memory."""
    return f"{sample.image}" if isinstance(sample.image, Path) else sample.name


def _fingerprint(sample: Sample) -> str:
    """Returns the hash of an image: of its file, or of its pixels."""
    if isinstance(sample.image, Path):
        return file_sha256(sample.image)
    return hashlib.sha256(sample.open().tobytes()).hexdigest()
