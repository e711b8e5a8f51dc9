"""Run, time and measure LLM inference frameworks side by side.

A reader meets the modules in this order:

    models     the weights every framework loads, and their shape
    files      the cache they lie in, and the checks that they are whole
    convert    make the unquantized weights from the default GGUF
    proof      that they are the same values, tensor by tensor

    engines    the frameworks: kernel, colour, how the server starts
    kernels    one framework = one Jupyter kernel; the ``%%in`` cell magic
    serving    start a framework's OpenAI-compatible server, and end it
    guard      ends a server's processes when they should end
    xllamacpp_server     llama.cpp's own server, from a wheel
    transformers_server  Transformers' own server, saying how large its KV cache is

    workload   seeded prompts of exact length
    client     send them: closed loop, open loop
    wire       one connection: bytes, and when they came
    answers    from bytes to events, text, counts and errors
    timing     TTFT, ITL, TPOT, throughput and their spread, from the stamps
    probe      does an endpoint answer, and how does it count?
    measure    warm up, repeat, alternate
    stats      which differences are real
    audit      the asked work and no other; answers that agree
    pools      KV pools and prefix caches, as the engines say them
    bench      the same for any endpoint: ``python -m helpers.bench``

    truth          a server that knows what it did
    truth_answers  what it says
    selftest       the client's own error and ceiling
    peers          other load clients and ours against that server: ``nox -s peers``
    peer_clients   how each of them is run and read
    layers         HTTP layers for a load client, against that server
    layer_clients  one small client for each

    memory     weights, KV cache, PSS of a whole process tree
    bandwidth  how fast this machine moves bytes and multiplies
    roofline   the bound that sets, and the share of it each engine reaches

    records    a measurement with its provenance, to and from JSON
    recording  the long measurements, as records
    plots      one colour and one marker per framework
    notebooks  what each notebook needs, and how it is executed
"""
