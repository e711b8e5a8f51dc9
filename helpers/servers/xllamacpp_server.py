"""llama.cpp's own HTTP server, run from the wheel ``xllamacpp`` (no build needed).

Used as ``python -m helpers.servers.xllamacpp_server --model FILE.gguf --port 8080 --slots 4``.
"""

import argparse
import ctypes
import signal
import threading
from pathlib import Path

import xllamacpp.xllamacpp

KV_CACHE_VERBOSITY = 4  # at 3, its default, the log does not say how large the KV cache is


def usual_verbosity() -> None:
    """Log as by default from now on: verbosity 4 writes about 20 kB for a request."""
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    ctypes.c_int.in_dll(library, "common_log_verbosity_thold").value = 3


def set_drafting(speculative, options: argparse.Namespace) -> None:
    """Set how tokens are drafted; llama.cpp's own default is not to draft."""
    kind = options.spec_type.upper().replace("-", "_")
    speculative.types = [getattr(xllamacpp.common_speculative_type, f"COMMON_SPECULATIVE_TYPE_{kind}")]
    for part, name, value in (
        (speculative.ngram_simple, "size_n", options.spec_ngram_simple_size_n),
        (speculative.ngram_simple, "size_m", options.spec_ngram_simple_size_m),
        (speculative.draft.mparams, "path", options.spec_draft_model),
        (speculative.draft, "n_max", options.spec_draft_n_max),
    ):
        if value is not None:
            setattr(part, name, value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=4, help="requests decoded together")
    parser.add_argument("--context", type=int, default=2048, help="tokens for each slot")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--chat-template-file", type=Path, help="a Jinja file, instead of the one in the model's file")
    parser.add_argument("--spec-type", default="none", help="how tokens are drafted; named as llama-server names them")
    parser.add_argument("--spec-ngram-simple-size-n", type=int, help="so many last tokens are looked up in the text so far")
    parser.add_argument("--spec-ngram-simple-size-m", type=int, help="so many tokens that stood behind them are drafted")
    parser.add_argument("--spec-draft-model", help="a GGUF file that drafts")
    parser.add_argument("--spec-draft-n-max", type=int, help="so many tokens it drafts for a step")
    parser.add_argument("--embeddings", action="store_true", help="vectors instead of answers")
    parser.add_argument("--pooling", choices=("mean", "cls", "last"), help="how a text's vectors become one")
    options = parser.parse_args()

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.hostnames, params.port = ["127.0.0.1"], options.port
    params.n_parallel = options.slots
    params.n_ctx = options.slots * options.context
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.n_gpu_layers = options.gpu_layers
    params.endpoint_metrics = params.endpoint_slots = True
    params.verbosity = KV_CACHE_VERBOSITY
    params.embedding = options.embeddings
    if options.pooling:
        params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{options.pooling.upper()}")
    if options.chat_template_file:
        params.chat_template = options.chat_template_file.read_text()
    set_drafting(params.speculative, options)
    server = xllamacpp.Server(params)  # loads the model; raises if it cannot
    usual_verbosity()
    print(f"listening on {server.listening_address}", flush=True)

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    while not stop.wait(0.2):  # one of the library's threads may take the signal; Python heeds it when this one wakes
        pass


if __name__ == "__main__":
    main()
