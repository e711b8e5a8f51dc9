"""Stands in for SGLang's package of compiled kernels where that cannot be loaded.

SGLang imports names from ``sgl_kernel`` on a CPU too; the package on PyPI is for CUDA only. On a
CPU without AMX SGLang computes in PyTorch and calls none of these kernels for a model like Llama.
Every name can be imported from here; one that is called raises with its name, so nothing is
silently wrong. Used only through the PYTHONPATH of the kernel ``sglang``, and only without a GPU.
"""

__version__ = "0.0.0"
__path__: list[str] = []  # "import sgl_kernel.part" fails as it should: there is no part


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args, **kwargs):
        raise NotImplementedError(f"SGLang called sgl_kernel.{name}, a compiled kernel that this CPU build does not have")

    missing.__name__ = name
    return missing
