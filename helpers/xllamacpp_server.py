"""llama.cpp's own HTTP server, run from the wheel ``xllamacpp`` (no build needed).

Used as ``python -m helpers.xllamacpp_server --model FILE.gguf --port 8080 --slots 4``.
"""

import argparse
import ctypes
import signal
import threading

import xllamacpp.xllamacpp

KV_CACHE_VERBOSITY = 4  # at 3, its default, the log does not say how large the KV cache is


def usual_verbosity() -> None:
    """Log as by default from now on: verbosity 4 writes about 20 kB for a request."""
    library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
    ctypes.c_int.in_dll(library, "common_log_verbosity_thold").value = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, default=4, help="requests decoded together")
    parser.add_argument("--context", type=int, default=2048, help="tokens for each slot")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--gpu-layers", type=int, default=0)
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
    server = xllamacpp.Server(params)  # loads the model; raises if it cannot
    usual_verbosity()
    print(f"listening on {server.listening_address}", flush=True)

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()


if __name__ == "__main__":
    main()
