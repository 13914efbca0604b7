"""Where a graph is run: on the GPU that Ray gave to this replica, if ONNX Runtime can use it, else on the CPU."""

from collections.abc import Mapping, Sequence
from typing import Final

GPU: Final = "CUDAExecutionProvider"
CPU: Final = "CPUExecutionProvider"
_VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
"""Ray names the GPUs of a replica here; empty for one that asked for none."""


def has_gpu(env: Mapping[str, str]) -> bool:
    """Whether this process may use a GPU."""
    return env.get(_VISIBLE, "") not in ("", "-1", "NoDevFiles")


def providers(env: Mapping[str, str], available: Sequence[str]) -> list[str]:
    """The execution providers to ask for, best first: ONNX Runtime takes the next where one does not start."""
    return [GPU, CPU] if has_gpu(env) and GPU in available else [CPU]


def fallback(env: Mapping[str, str], used: Sequence[str]) -> str:
    """Why a replica with a GPU evaluates on its CPU all the same; empty where there is nothing to tell."""
    if not has_gpu(env) or GPU in used:
        return ""
    return (
        "The replica holds a GPU and evaluates on its CPU: ONNX Runtime cannot use CUDA here. Use an image with "
        "onnxruntime-gpu and the CUDA libraries, or ask for no GPU."
    )
