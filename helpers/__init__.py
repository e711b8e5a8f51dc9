"""Run, time and measure LLM inference frameworks side by side.

A reader meets the modules in this order:

    models     the weights every framework loads, and their shape
    files      the cache they lie in, and the checks that they are whole
    convert    make the unquantized weights from the default GGUF
    proof      that they are the same values, tensor by tensor

    engines    the frameworks: kernel, colour, how the server starts
    kernels    one framework = one Jupyter kernel; the ``%%in`` cell magic
    serving    start a framework's OpenAI-compatible server, and end it
    llama_server  llama.cpp's: its own program, or a wheel in its kernel
    processes  a started process: ended, its log's reason, its command without folders
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
    peer_tables    their errors as tables
    layers         HTTP layers for a load client, against that server
    layer_clients  one small client for each

    speculation  speculative decoding: what it can bring, what an engine did
    drafts       draft models: checked, or cut from the target itself

    constraints  request fields that constrain an answer, for each server
    schemas      JSON Schemas and prompts; what makes a schema impossible
    structured   ask, and validate what comes: which engine, which keyword
    features     one live probe for each feature of a server
    conformance  which framework does what: ``python -m helpers.conformance``

    gguf_types      GGUF types made from the unquantized weights, and what is inside
    gguf_runs       what a GGUF file costs to load, how fast it decodes, its answers
    perplexity      what a quantized model lost: perplexity, KL, top-1 agreement
    quant_support   which framework takes which quantized weights
    quant_probes    asks one installed framework, in its own interpreter

    memory     weights, KV cache, PSS of a whole process tree
    shapes     what decides a model's memory: of known models, from a config
    capacity   does it fit? ``python -m helpers.capacity``
    allocation  contiguous, paged and shared KV caches on one trace, exactly
    bandwidth  how fast this machine moves bytes and multiplies
    roofline   the bound that sets, and the share of it each engine reaches

    scaling      a Ray cluster, somewhere else or started here: on loopback, and gone afterwards
    replicas     what runs on it: an engine in each copy, for Ray Data and Ray Serve
    parallelism  one model over several GPUs: what each holds, what moves, when it pays
    published    that calculator against published figures
    launch       the engines' commands for several GPUs, given to their own parsers

    decision_rules    when to take which framework: the rules, and their language
    decision          ask them: an answer, its reasons, what would change it
    decision_figures  the same as pictures and as a page

    switching  from one server to another: does the same client get the same?
    faults     a proxy that breaks a real server on purpose, and keeps what it received
    routing    LiteLLM's router over servers of ours, and traffic through it
    pipeline   restartable stages over SQLite: nothing lost, nothing twice
    orders     the structured pipeline on orders: ``python -m helpers.orders``
    pins       can two packages share an environment? what their metadata say
    operating  health, metrics and the graceful stop of each server

    records    a measurement with its provenance, to and from JSON
    recording  the long measurements, as records
    recording_quantization  every GGUF type on the whole text, as a record
    gpu        the source document's tables on an NVIDIA GPU, a package of its own: ``nox -s gpu``
    readme     what the README shows of the records: ``python -m helpers.readme``
    plots      one colour and one marker per framework
    notebooks  what each notebook needs, and how it is executed
    document   its tables, as it has them and as they are
    guide      records laid out like its tables, and what a token costs
    claims     the source document's claims: verdict, reason, and the cell or page that settles each
    references papers, versions and the glossary, each address checked
"""
