"""Exported files: one file that holds a detector for another engine, and the proof that it finds the same."""

try:
    import onnx  # noqa: F401 - nearly every kind of file is made from an ONNX model
    import onnxscript  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "exporting needs onnx and onnxscript: pip install 'multibox[export]'", name=error.name
    ) from error
