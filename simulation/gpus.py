"""Several GPUs of one machine, dealt out to the processes that share it: each process sees one."""

import os


def visible_gpus() -> int:
    """How many this process may use."""
    import torch  # noqa: PLC0415  processes that are dealt one need not have it

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def take_gpu(slot: int, gpus: int) -> None:
    """Let this process see the GPU of its slot alone. To be called before it computes; without GPUs nothing changes.

    Args:
        slot: which of the processes this is, from 0; more processes than GPUs share them in turn.
        gpus: that are visible, as PyTorch counts them.
    """
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu_name(slot, gpus)


def gpu_name(slot: int, gpus: int) -> str:
    """The GPU of a slot, by the name that is visible to this run; args as `take_gpu`."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name for name in visible.split(",") if name] or [str(number) for number in range(gpus)]
    return names[slot % len(names)]
