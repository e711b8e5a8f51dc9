"""The same on a GPU: the source document's tables, measured by `nox -s gpu` and read again on any machine.

A run (`runs`) is a list of lives (`cases`); a life is one start of one engine (`session`) and what is done in it (`tasks`).
Weights are random in a known model's shape, because speed and memory do not depend on the values; no text is taken from them.
`several` lays a model over several GPUs. `work/` has a module for each work that a life does, `recorded/` what reads the
records afterwards, without a GPU.
"""
