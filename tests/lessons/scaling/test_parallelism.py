"""The calculator for several GPUs by hand and against published figures; the commands, and every layout that does not exist."""

import json
import subprocess

import pytest
from offenders import over

from helpers import kernels
from helpers.lessons.scaling import launch, parallelism, published
from helpers.lessons.scaling.parallelism import Layout, LayoutError
from helpers.weights import shapes


def every() -> dict[str, dict]:
    """The names of all models, of the shipped table and of the larger ones."""
    return {name: {"name": name} for name in (*shapes.known(), *parallelism.table()["models"])}


class TestShare:
    """What the fullest GPU holds."""

    @over(every, "name")
    def test_one_gpu_holds_every_parameter(self, name):
        """The parts that are cut, copied and split by head are, together, all of the model and no more."""
        share = parallelism.share(name, Layout())

        assert share.weights_bytes == 2 * parallelism.of(name).sheet.parameters

    @over(lambda: {name: {"name": name} for name in parallelism.table()["models"]}, "name")
    def test_the_larger_models_have_their_published_parameters(self, name):
        """Counted from the config, to the last one."""

        assert parallelism.of(name).sheet.parameters == parallelism.table()["models"][name]["parameters"]

    def test_by_hand(self):
        """Llama-3.1-8B, TP2: half of each matrix and of the vocabulary, and all 65 norms of 4,096 values."""
        norms = 65 * 4096

        share = parallelism.share("Llama-3.1-8B", Layout(2))

        assert share.weights_bytes == 2 * ((8_030_261_248 - norms) // 2 + norms)
        assert share.kv_bytes_per_token == 32 * 4 * 2 * 128 * 2

    def test_tp_above_the_kv_heads_copies_them(self):
        """With 8 KV heads, 16 GPUs hold each head twice: the cache on a GPU is that of TP8."""
        eight, sixteen = (parallelism.share("Llama-3.1-70B", Layout(tp)) for tp in (8, 16))

        assert (eight.kv_copies, sixteen.kv_copies) == (1, 2)
        assert sixteen.kv_bytes_per_token == eight.kv_bytes_per_token
        assert sixteen.copied_bytes > eight.copied_bytes

    def test_tp_does_not_divide_a_latent(self):
        """With MLA every GPU of the group has the whole cache."""

        assert [parallelism.share("DeepSeek-V3", Layout(tp)).kv_bytes_per_token for tp in (1, 8)] == [70_272] * 2

    def test_the_fullest_stage_has_the_odd_layer(self):
        """61 layers on two stages: 31 on one of them."""
        share = parallelism.share("DeepSeek-V3", Layout(pp=2))

        assert share.kv_bytes_per_token == round(70_272 * 31 / 61)

    def test_experts_of_a_gpu_are_whole(self):
        """256 experts on 16 GPUs are 16 each; on 320 some GPU has one."""

        assert [parallelism.share("DeepSeek-V3", Layout(1, dp=n, ep=True)).experts for n in (16, 320)] == [16, 1]


class TestTraffic:
    """Bytes one GPU sends for a token."""

    def test_tensor_parallel_by_hand(self):
        """80 layers, two all-reduces, 16 KiB, 2 x 7 / 8 of it sent."""

        assert parallelism.traffic("Llama-3.1-70B", Layout(8))["TP"] == 80 * 2 * 16384 * 2 * 7 / 8

    def test_pipeline_by_hand(self):
        """A GPU sends a hidden vector to the next stage, however many stages there are."""

        assert [parallelism.traffic("Llama-3.1-70B", Layout(pp=pp))["PP"] for pp in (1, 2, 4)] == [0, 16384, 16384]

    def test_a_gpu_of_a_stage_sends_for_its_layers_only(self):
        """TP8 in each of two stages: a GPU's all-reduces are those of 40 layers."""

        assert parallelism.traffic("Llama-3.1-70B", Layout(8, 2))["TP"] == 40 * 2 * 16384 * 2 * 7 / 8

    def test_experts_by_hand(self):
        """58 layers, 8 experts, 7,168 values there as FP8 and back as BF16, 15 of 16 elsewhere."""
        layout = Layout(1, dp=16, ep=True)

        assert parallelism.traffic("DeepSeek-V3", layout)["EP"] == 58 * 8 * 7168 * 3 * 15 / 16

    def test_experts_inside_a_tp_group_send_what_tp_sends(self):
        """Every GPU has all tokens, so nothing is dispatched: two all-reduces in each of 48 layers, and no all-to-all."""
        apart, cut = (parallelism.traffic("Qwen3-30B-A3B", Layout(2, ep=ep)) for ep in (True, False))

        assert apart == cut == {"TP": 96 * 4096, "PP": 0.0, "EP": 0.0, "DP": 0.0}

    def test_copies_send_nothing(self):
        """Data parallelism moves no bytes between its GPUs."""

        assert set(parallelism.traffic("Llama-3.1-70B", Layout(dp=8)).values()) == {0.0}


class TestStep:
    """The bound on a step, and when TP pays."""

    def test_one_gpu_by_hand(self):
        """All weights but the embedding's table, at 3.35 TB/s; no link."""
        step = parallelism.step("Llama-3.1-8B", Layout())

        assert step.wire_s == 0
        assert step.read_s == pytest.approx(2 * (8_030_261_248 - 128256 * 4096) / 3.35e12)

    def test_waiting_by_hand(self):
        """TP8 over NVLink: 64 all-reduces of 6.6 + 14 x 0.6 us, and 7/4 of 8 KiB at 450 GB/s in each."""
        step = parallelism.step("Llama-3.1-8B", Layout(8))

        assert step.wire_s == pytest.approx(64 * (15e-6 + 8192 * 7 / 4 / 450e9))

    def test_a_step_crosses_every_border_and_every_stage(self):
        """Four stages of TP2: three hidden vectors between machines, and the all-reduces of all 80 layers inside them."""
        step = parallelism.step("Llama-3.1-70B", Layout(2, 4), between="400 Gbit/s")
        near, far = (parallelism.table()["links"][link] for link in ("NVLink", "400 Gbit/s"))
        reduced = 160 * ((near["base_us"] + 2 * near["step_us"]) / 1e6 + 16384 / (near["gb_per_s"] * 1e9))
        handed = 3 * ((far["base_us"] + far["step_us"]) / 1e6 + 16384 / (far["gb_per_s"] * 1e9))

        assert step.wire_s == pytest.approx(reduced + handed)

    def test_fp8_has_twice_the_arithmetic(self):
        """As the data sheet has it."""
        fp8, bf16 = (
            parallelism.step("Llama-3.1-70B", Layout(2), tokens=2048, dtype=name).compute_s for name in ("fp8", "bfloat16")
        )

        assert fp8 == pytest.approx(bf16 / 2, rel=0.001)

    def test_a_slow_link_does_not_pay(self):
        """Over 10 Gbit/s a small model is slower with every TP; over NVLink it is faster."""

        assert [parallelism.pays("Llama-3.1-8B", tp, link="10 Gbit/s") for tp in (2, 4, 8)] == [False] * 3
        assert parallelism.pays("Llama-3.1-8B", 8)

    def test_one_token_reads_only_its_experts(self):
        """DeepSeek-V3 reads its active parameters for one token, and nearly all for a thousand."""
        one, many = (parallelism.step("DeepSeek-V3", Layout(8), tokens=n, dtype="fp8").read_s for n in (1, 1000))

        assert one < 0.1 * many


@over(lambda: {check.says: {"check": check} for check in published.checks()}, "check")
def test_published_figures_are_met(check):
    """What others have published, within three per cent; what fits, exactly."""

    assert check.good, (check.published, check.here)


def test_every_published_figure_has_a_source():
    """A title and an address stand beside each, and a check behind each."""
    rows = parallelism.table()["published"]

    assert all(row["title"] and row["address"].startswith("https://") for row in rows.values())
    assert set(rows) == set(published.HERE)


@pytest.mark.parametrize(
    ("name", "layout", "said"),
    [
        ("Llama-3.1-8B", {"tp": 3}, "TP 3 does not divide its 32 attention heads: take one of 1, 2, 4, 8, 16, 32"),
        ("Llama-3.1-8B", {"pp": 33}, "33 stages for 32 layers"),
        ("Llama-3.1-8B", {"tp": 8, "ep": True}, "is dense: without experts there is no EP"),
        ("Qwen2.5-7B", {"tp": 7}, "TP 7 and its 4 KV heads do not divide each other"),
        ("nothing", {}, "no model is called 'nothing'"),
        ("Llama-3.1-8B", {"tp": 0}, "each is at least 1"),
    ],
)
def test_a_layout_that_does_not_exist_is_refused(name, layout, said):
    """One line says the thing and the reason."""
    with pytest.raises(LayoutError, match=said) as refused:
        parallelism.share(name, Layout(**layout))

    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"link": "string"}, "no link is called"), ({"gpu": "A"}, "no gpu is called"), ({"tokens": 0}, "at least one")],
)
def test_an_unknown_link_gpu_or_empty_step_is_refused(options, said):
    """The known ones are listed."""
    with pytest.raises(LayoutError, match=said):
        parallelism.step("Llama-3.1-8B", Layout(2), **options)


class TestCommands:
    """One function writes them for all three engines."""

    def test_one_command_for_each_machine(self):
        """Sixteen GPUs are two machines; srun starts TensorRT-LLM on both at once."""
        found = launch.commands("M", Layout(8, 2))

        assert {engine: len(lines) for engine, lines in found.items()} == {"vllm": 2, "sglang": 2, "tensorrt-llm": 1}

    def test_gpus_that_fill_no_machine_are_refused(self):
        """Twelve GPUs on machines of eight."""
        with pytest.raises(LayoutError, match="do not fill machines of 8"):
            launch.commands("M", Layout(4, 3))

    def test_tensorrt_llm_options_are_those_of_its_sources(self):
        """Every option in a command of ours is one that was read there."""
        lines = [line for model, layout in launch.EXAMPLES.values() for line in launch.commands(model, layout)["tensorrt-llm"]]
        used = {word for line in lines for word in line.partition("trtllm-serve")[2].split() if word.startswith("--")}

        assert used <= set(launch.TENSORRT_LLM)

    def test_every_file_that_a_command_names_is_told(self):
        """With --config; none is told that no command names."""
        lines = [line for model, layout in launch.EXAMPLES.values() for line in launch.commands(model, layout)["tensorrt-llm"]]

        assert {line.partition("--config ")[2].split()[0] for line in lines if "--config" in line} == set(launch.FILES)

    @pytest.mark.engine
    @pytest.mark.parametrize(("engine", "size"), [("vllm", "tensor_parallel_size"), ("sglang", "tp_size")])
    def test_the_engines_own_parser_takes_every_command(self, engine, size):
        """The installed package parses each of them, with the sizes that were meant."""
        wanted = launch.examples(engine)

        took = kernels.ask(engine, "helpers.lessons.scaling.launch", engine, given=json.dumps(wanted))

        assert len(took) == len(wanted)
        assert (took[0][size], took[1]["nnodes"], took[2]["node_rank"]) == (8, 2, 1)

    @pytest.mark.engine
    def test_a_command_that_is_wrong_is_noticed(self):
        """The parser refuses an option that does not exist: the check can fail."""
        ask = [kernels.interpreter("sglang"), "-m", "helpers.lessons.scaling.launch", "sglang"]

        ran = subprocess.run(
            ask, input='["python -m sglang.launch_server --model-path M --tpsize 8"]', text=True, capture_output=True
        )

        assert ran.returncode == 2 and "--tpsize" in ran.stderr
