"""A stand-in for torch on a machine with GPUs.

As CUDA does, it reads CUDA_VISIBLE_DEVICES when it is first used, and not again.
"""

import os
import sys
from types import SimpleNamespace


class Cuda:
    """What `torch.cuda` has of devices, where the driver can't count them without CUDA.

    Args:
        devices: that CUDA finds where CUDA_VISIBLE_DEVICES is not set.
    """

    def __init__(self, devices):
        self._devices = devices
        self._visible_devices = None

    def init(self):
        if self._visible_devices is None:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            self._visible_devices = self._devices if visible is None else visible.split(",")

    def device_count(self):
        self.init()
        return len(self._visible_devices)

    def is_available(self):
        return self.device_count() > 0


def install(devices=("0", "1", "2", "3")):
    """Let `import torch` give the stand-in; gives it."""
    torch = SimpleNamespace(cuda=Cuda(devices), version=SimpleNamespace(cuda="12.6"))
    sys.modules["torch"] = torch
    return torch
