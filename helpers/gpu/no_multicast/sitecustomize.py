"""Read by every Python process that has this folder in its path: a GPU engine's, and those that it spawns.

NVLink multicast is made with one call of the driver. Where hosts are shared, a program that uses it can put GPUs that
others use out of service, so the call is an error here. It is refused in Python only; what C++ does is told by the
variables of :mod:`helpers.gpu.several`.
"""


def refused(*_, **__):
    """In place of ``cuMulticastCreate``."""
    raise RuntimeError("NVLink multicast is not used here: switch the all-reduce off that asks for it")


try:
    from cuda.bindings import driver

    driver.cuMulticastCreate = refused
except ImportError:  # no package of CUDA's driver: nothing to refuse
    pass
