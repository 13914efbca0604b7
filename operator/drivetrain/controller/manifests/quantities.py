"""Arithmetic on Kubernetes quantities: what a Pod's request means in bytes, CPUs and GPUs."""

from decimal import Decimal

from drivetrain.api.v1alpha1.training import Resources

_SUFFIXES = {
    **{f"{letter}i": Decimal(1024) ** power for power, letter in enumerate("KMGT", start=1)},
    **{letter: Decimal(1000) ** power for power, letter in enumerate("kMGT", start=1)},
    "m": Decimal(1) / 1000,
}
_MEBIBYTE = 1024 * 1024
OBJECT_STORE_SHARE = Decimal("0.3")
"""Part of a Pod's memory that Ray's object store may take: Ray's own default."""
SHARED_MEMORY_SHARE = Decimal("0.4")
"""Part of a Pod's memory that /dev/shm may take: the object store, and some room for libraries that use it too."""
SMALLEST_STORE = 80 * _MEBIBYTE
"""Ray refuses less than 75 MiB."""


def amount(quantity: str) -> Decimal:
    """The number that a quantity stands for: bytes of memory, CPUs."""
    for suffix, factor in _SUFFIXES.items():
        if quantity.endswith(suffix):
            return Decimal(quantity.removesuffix(suffix)) * factor
    return Decimal(quantity)


def object_store_bytes(resources: Resources) -> int:
    """How large Ray's object store is on a Pod with this memory, in whole MiB."""
    return max(_mebibytes(amount(resources.memory) * OBJECT_STORE_SHARE), SMALLEST_STORE)


def shared_memory(resources: Resources) -> str:
    """The size limit of /dev/shm, as a quantity; what is used of it counts as the container's memory."""
    room = max(_mebibytes(amount(resources.memory) * SHARED_MEMORY_SHARE), object_store_bytes(resources))
    return f"{room // _MEBIBYTE}Mi"


def times(quantity: str, count: int) -> str:
    """The quantity `count` times, with the same suffix."""
    digits = quantity.rstrip("mkKMGTi")
    product = Decimal(digits) * count
    return f"{product.normalize():f}{quantity[len(digits) :]}"


def _mebibytes(size: Decimal) -> int:
    return int(size // _MEBIBYTE) * _MEBIBYTE
