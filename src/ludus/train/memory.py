"""How much memory a piece of work needs at its peak."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_memory(work: Callable[[], object], device: torch.device | str = "cpu") -> int:
    """Bytes of tensors that `work()` held at its worst moment, beyond those that stood before it.

    On the CPU every call of torch's allocator is recorded, temporaries inside operations included; on a GPU its
    own counter is read. Tensors that `work` returns are counted, and freed afterwards.
    """
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    if device.type != "cpu":
        raise NotImplementedError(f"memory is measured on cpu and cuda; got {device.type}")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    result = recorded.profiler.kineto_results if recorded.profiler else None
    assert result is not None
    events = [event for event in result.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]  # not in torch's stubs
        peak = max(peak, held)
    return peak
