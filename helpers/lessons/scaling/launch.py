"""The commands that start a model over several GPUs and machines, for vLLM, SGLang and TensorRT-LLM.

They are written once, here. vLLM's and SGLang's are given to the parsers of the installed packages
(``python -m helpers.lessons.scaling.launch vllm`` in the kernel of that engine); TensorRT-LLM is not installed: the options
are those of its sources, see ``TENSORRT_LLM``. None of them is run: that takes GPUs.
"""

from __future__ import annotations

import json
import shlex
import sys

from helpers.lessons.scaling.parallelism import Layout, LayoutError

MASTER = 29500  # the port where the ranks of several machines meet
EXAMPLES = {  # on machines of eight GPUs
    "TP in one machine": ("meta-llama/Llama-3.1-70B-Instruct", Layout(8)),
    "TP in each machine, PP between two": ("meta-llama/Llama-3.1-405B-Instruct", Layout(8, 2)),
    "DP of the attention, EP of the experts": ("deepseek-ai/DeepSeek-V3", Layout(1, dp=16, ep=True)),
}
# Options of `trtllm-serve`, read in tensorrt_llm/commands/serve.py at NVIDIA/TensorRT-LLM@00209af (1.2) on 2026-11-25;
# several machines: docs/source/commands/trtllm-serve, disaggregation: docs/source/features/disagg-serving.md.
TENSORRT_LLM = ("--tp_size", "--pp_size", "--ep_size", "--gpus_per_node", "--host", "--port", "--config", "--server_role")
# What a command names with --config; the option as in examples/serve/deepseek_r1_reasoning_parser.sh there.
FILES = {"attention_dp.yaml": "enable_attention_dp: true"}


def commands(model: str, layout: Layout, *, per_node: int = 8, head: str = "HEAD") -> dict[str, list[str]]:
    """``{engine: [command of each machine]}``; TensorRT-LLM's is given to all machines at once.

    :class:`LayoutError` where a replica's GPUs do not fill its machines.
    """
    nodes = -(-layout.gpus // per_node)
    if per_node < 1 or (nodes > 1 and layout.gpus % per_node):
        raise LayoutError(f"{layout} are {layout.gpus} GPUs: they do not fill machines of {per_node}")
    return {
        "vllm": [_vllm(model, layout, rank, nodes, per_node, head) for rank in range(nodes)],
        "sglang": [_sglang(model, layout, rank, nodes, head) for rank in range(nodes)],
        "tensorrt-llm": [_tensorrt_llm(model, layout, nodes, per_node)],
    }


def _vllm(model: str, layout: Layout, rank: int, nodes: int, per_node: int, head: str) -> str:
    parts = ["vllm serve", model, *_sizes(layout, "--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size")]
    parts += ["--enable-expert-parallel"] if layout.ep else []
    if nodes > 1 and layout.dp > 1:  # vLLM spreads whole DP ranks over machines
        local = layout.dp // nodes
        if local < 1:
            raise LayoutError(f"{layout}: vLLM wants whole replicas on a machine of {per_node} GPUs; take a smaller TP x PP")
        parts += [f"--data-parallel-size-local {local}", f"--data-parallel-address {head}", "--data-parallel-rpc-port 13345"]
        return " ".join(parts + ([f"--data-parallel-start-rank {rank * local} --headless"] if rank else []))
    if nodes > 1:
        parts += [f"--nnodes {nodes} --node-rank {rank}", f"--master-addr {head} --master-port {MASTER}"]
        parts += ["--headless"] if rank else []
    return " ".join(parts)


def _sglang(model: str, layout: Layout, rank: int, nodes: int, head: str) -> str:
    """Its ``--tp-size`` counts all GPUs of a stage: DP divides the attention among them."""
    parts = ["python -m sglang.launch_server --model-path", model, f"--tp-size {layout.tp * layout.dp}"]
    parts += [f"--pp-size {layout.pp}"] if layout.pp > 1 else []
    parts += [f"--attn-dp-size {layout.dp}"] if layout.dp > 1 else []
    parts += [f"--ep-size {layout.ep_size}"] if layout.ep else []
    parts += [f"--nnodes {nodes} --node-rank {rank} --dist-init-addr {head}:{MASTER}"] if nodes > 1 else []
    return " ".join(parts)


def _tensorrt_llm(model: str, layout: Layout, nodes: int, per_node: int) -> str:
    """Its TP counts as SGLang's does; DP of the attention is ``FILES["attention_dp.yaml"]``."""
    parts = ["trtllm-serve", model, f"--tp_size {layout.tp * layout.dp}"]
    parts += [f"--pp_size {layout.pp}"] if layout.pp > 1 else []
    parts += [f"--ep_size {layout.ep_size}"] if layout.ep else []
    parts += ["--config attention_dp.yaml"] if layout.dp > 1 else []
    if nodes > 1:
        parts = [f"srun -N {nodes} --ntasks {layout.gpus} --ntasks-per-node {per_node} --mpi=pmix trtllm-llmapi-launch", *parts]
    return " ".join(parts)


def _sizes(layout: Layout, tp: str, pp: str, dp: str) -> list[str]:
    return [f"{option} {size}" for option, size in ((tp, layout.tp), (pp, layout.pp), (dp, layout.dp)) if size > 1]


def examples(engine: str) -> list[str]:
    """Every command of ``EXAMPLES`` for ``engine``, and its servers of :func:`disaggregated`."""
    several = [command for model, layout in EXAMPLES.values() for command in commands(model, layout)[engine]]
    apart = disaggregated(EXAMPLES["TP in one machine"][0])[engine]
    return several + [apart["prefill"], apart["decode"]]


def disaggregated(model: str) -> dict[str, dict[str, str]]:
    """``{engine: {role: command}}``: one server for prefill, one for decode, and what stands in front of them.

    On one machine each of vLLM's needs its own ``CUDA_VISIBLE_DEVICES`` and ``VLLM_NIXL_SIDE_CHANNEL_PORT`` (vllm/envs.py).
    """
    transfer = shlex.quote(json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"}))
    sglang = f"python -m sglang.launch_server --model-path {model} --disaggregation-transfer-backend nixl --disaggregation-mode"
    return {
        "vllm": {
            "prefill": f"vllm serve {model} --port 8100 --kv-transfer-config {transfer}",
            "decode": f"vllm serve {model} --port 8200 --kv-transfer-config {transfer}",
        },
        "sglang": {
            "prefill": f"{sglang} prefill --port 30000 --disaggregation-bootstrap-port 8998",
            "decode": f"{sglang} decode --port 30001",
            "router": "python -m sglang_router.launch_router --pd-disaggregation --policy cache_aware "
            "--prefill http://PREFILL:30000 8998 --decode http://DECODE:30001",
        },
        "tensorrt-llm": {
            "prefill": f"trtllm-serve {model} --port 8001 --config prefill.yaml",
            "decode": f"trtllm-serve {model} --port 8002 --config decode.yaml",
            "router": "trtllm-serve disaggregated -c disaggregated.yaml",
        },
    }


def arguments(command: str) -> list[str]:
    """What an engine's parser gets of ``command``; the model of ``vllm serve`` is its first argument."""
    return shlex.split(command)[3 if " -m " in command else 2 :]


def parsed(engine: str, wanted: list[str]) -> list[dict]:
    """``wanted`` commands as the installed ``engine`` parses them: what differs from its defaults. Only in its own kernel.

    A command it does not take ends the process as its own server would (``SystemExit``).
    """
    parser = {"vllm": _vllm_parser, "sglang": _sglang_parser}[engine]()
    return [_set(parser, [] if engine == "vllm" else ["--model-path", "x"], arguments(command)) for command in wanted]


def _set(parser, without: list[str], given: list[str]) -> dict:
    usual, now = vars(parser.parse_args(without)), vars(parser.parse_args(given))
    changed = {name: value for name, value in now.items() if value != usual.get(name) and not name.startswith("model")}
    return {name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in changed.items()}


def _vllm_parser():
    from vllm.entrypoints.launchers import cli_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return cli_args.make_arg_parser(FlexibleArgumentParser())


def _sglang_parser():
    import argparse

    from sglang.srt.server_args import ServerArgs

    parser = argparse.ArgumentParser()
    ServerArgs.add_cli_args(parser)
    return parser


if __name__ == "__main__":
    print(json.dumps(parsed(sys.argv[1], json.loads(sys.stdin.read()))))
