"""Read by every Python process that has this folder in its path: a GPU engine's, and those that it spawns.

NVLink multicast is made with one call of the driver. Where hosts are shared, a program that uses it can put GPUs that
others use out of service, so the call is an error here. It is refused in Python only; what C++ does is told by the
variables of :mod:`helpers.gpu.several`.
"""

import importlib.abc
import importlib.util
import sys

# What asks for it without a switch of its own, and what it then does without: SGLang's gathering of logits takes NCCL.
TAKEN_OUT = {"sglang.srt.distributed.device_communicators.triton_symm_mem_ag": "create_state"}


def refused(*_, **__):
    """In place of ``cuMulticastCreate``."""
    raise RuntimeError("NVLink multicast is not used here: switch the all-reduce off that asks for it")


def taken_out(*_, **__):
    """In place of what is in :data:`TAKEN_OUT`."""
    raise RuntimeError("it is taken out here")


class Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of :data:`TAKEN_OUT` as usual, and takes out what is named there."""

    def find_spec(self, name, path, target=None):
        if name not in TAKEN_OUT:
            return None
        sys.meta_path.remove(self)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            sys.meta_path.insert(0, self)
        if spec and spec.loader:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                setattr(module, TAKEN_OUT[name], taken_out)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Finder())
try:
    from cuda.bindings import driver

    driver.cuMulticastCreate = refused
except ImportError:  # no package of CUDA's driver: nothing to refuse
    pass
