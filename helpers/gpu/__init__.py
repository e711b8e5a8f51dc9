"""The source document's tables on an NVIDIA GPU: ``nox -s gpu``, ``python -m helpers.gpu``.

    device     is there a GPU that will do, and what does it hold now?
    weights    random weights in the shape of Llama-2-7B, for every engine
    variants   each engine as it comes, and with one thing changed: its arguments
    offline    prompts through an engine's own API, timed (runs in the engine's interpreter)
    offline_engines  one small class for each engine
    life       one start of one engine: what it did is kept row by row
    work       what is done in a life: server, offline, llama.cpp's bench, roof
    plans      which lives make which run
    runs       the runs: resumed, within a time budget, recorded
    options    speculative decoding and JSON schema, with a real model
    streaming  what a server does beside decoding: streamed answers, answers in one piece
    kernelspecs  engines that lie in folders made elsewhere
    notebooks  the notebooks under nbval on the GPU, as a record
    tensorrt_llm  what others say of it, which is not measured here
    replay     what a record holds, read on any machine
    tables     the records as the source document's tables
    across     one life on several machines

Random weights, because speed and memory do not depend on the values; no text and no acceptance
rate is ever taken from them.
"""
