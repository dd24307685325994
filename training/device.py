"""What computes: the device, whether bf16 pays there, and how much goes into one pass."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

# Logits of 49,152 words for 1,024 tokens, with what the loss keeps of them, are 1.6 GB. A pass of 256 tokens needs
# 2.0 GB for SmolLM2's whole training instead of 3.8, and is 4 % slower (fp32, AVX2).
_CPU_PASS_TOKENS = 256


def pick_device() -> torch.device:
    """The local rank's CUDA device when there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products are faster than fp32 there, not merely possible (emulated, they are 4× slower)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capability: str = torch.backends.cpu.get_cpu_capability()
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    return capability.startswith("AVX512") and ("avx512_bf16" in flags or "amx_bf16" in flags)


def rows_per_pass(device: torch.device, sequence_length: int, rows: int) -> int:
    """How many of `rows` sequences go through the model at once: all on an accelerator, few where memory is shared."""
    return rows if device.type == "cuda" else max(1, min(rows, _CPU_PASS_TOKENS // sequence_length))


def autocast(device: torch.device, bf16: bool) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
