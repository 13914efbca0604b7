"""Which execution provider a replica asks for, and what it tells when it falls back."""

import pytest

from drivetrain.serving.device import CPU, GPU, fallback, providers


@pytest.mark.parametrize(
    ("visible", "available", "expected"),
    [
        ("0", (GPU, CPU), [GPU, CPU]),
        ("", (GPU, CPU), [CPU]),
        ("-1", (GPU, CPU), [CPU]),
        ("0", (CPU,), [CPU]),
    ],
)
def test_cuda_is_asked_for_where_the_replica_has_a_gpu_and_the_runtime_knows_it(
    visible: str, available: tuple[str, ...], expected: list[str]
) -> None:
    assert providers({"CUDA_VISIBLE_DEVICES": visible}, available) == expected


def test_a_replica_without_a_gpu_asks_for_the_cpu_and_tells_nothing() -> None:
    assert providers({}, (GPU, CPU)) == [CPU]
    assert fallback({}, (CPU,)) == ""


def test_a_gpu_that_is_not_used_is_told_with_what_to_do() -> None:
    told = fallback({"CUDA_VISIBLE_DEVICES": "0"}, (CPU,))
    assert "onnxruntime-gpu" in told
    assert fallback({"CUDA_VISIBLE_DEVICES": "0"}, (GPU, CPU)) == ""
