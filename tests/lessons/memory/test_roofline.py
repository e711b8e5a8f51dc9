"""The bounds, computed by hand; what is measured is only compared with itself and with the caches."""

import json
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from helpers import machine, plots
from helpers.lessons.memory import bandwidth, roofline
from helpers.lessons.memory.bandwidth import RooflineError
from helpers.servers import engines
from helpers.weights import bounds, models, sizes
from helpers.weights.bounds import Bound, Roof, Work
from helpers.weights.models import ModelError

MIB = 2**20

# Llama-3-8B in bf16: 8,030,261,248 values, of which the input embedding, 128,256 x 4,096, is only looked up
LLAMA_3_8B = Work(15_009_849_344, 131_072, parameters=7_504_924_672, head_parameters=525_336_576)
SMOLLM2 = Work(269_030_016, 23_040, parameters=134_515_008, head_parameters=28_311_552)


def roof(bandwidth_bytes_per_s: float, flops_per_s: float) -> Roof:
    """A roof as a data sheet gives it."""
    return Roof("paper", bandwidth_bytes_per_s, flops_per_s, {}, {}, threads=None, load_average=0, array_bytes=0)


H100, H200 = roof(3.35e12, 989.4e12), roof(4.8e12, 989.4e12)
TWO_CORES = roof(40e9, 95e9)


class TestDecode:
    """Every step reads the weights once and each user's KV cache."""

    @pytest.mark.parametrize(
        ("work", "context_tokens", "gigabytes"),
        [(LLAMA_3_8B, 0, 15.01), (LLAMA_3_8B, 8192, 16.08), (SMOLLM2, 0, 0.269)],
    )
    def test_bytes_of_a_step_of_one_user(self, work, context_tokens, gigabytes):
        """8192 tokens of 128 KiB are 1.07 GB more."""

        assert bounds.step_bytes(work, 1, context_tokens) / 1e9 == pytest.approx(gigabytes, abs=0.005)

    def test_users_share_the_weights_and_not_the_kv_cache(self):
        """Ten users of 192 tokens: 269 MB once and ten times 4.4 MB."""

        assert bounds.step_bytes(SMOLLM2, 10, 192) == 269_030_016 + 10 * 192 * 23_040

    @pytest.mark.parametrize(
        ("work", "on", "context_tokens", "tokens_per_s"),
        [
            (LLAMA_3_8B, H100, 0, 223),
            (LLAMA_3_8B, H100, 8192, 208),
            (LLAMA_3_8B, H200, 0, 320),
            (LLAMA_3_8B, H200, 8192, 298),
            (SMOLLM2, H100, 0, 12_452),
            (SMOLLM2, TWO_CORES, 0, 149),
        ],
    )
    def test_one_user_is_bound_by_memory(self, work, on, context_tokens, tokens_per_s):
        """3.35 TB/s over 15.01 GB are 223 tokens per second."""
        found = bounds.decode_bound(work, on, 1, context_tokens)

        assert (round(found.tokens_per_s), found.limited_by) == (tokens_per_s, "memory")

    def test_many_users_are_bound_by_arithmetic(self):
        """989.4 TFLOP/s over 15.01 GFLOP a token, however many users."""
        found = bounds.decode_bound(LLAMA_3_8B, H100, 1000)

        assert (round(found.tokens_per_s), found.limited_by) == (65_917, "compute")

    def test_the_bounds_meet_at_the_ridge(self):
        """In bf16 without KV cache a user adds one FLOP per byte: on an H100 memory is the bound up to 295 users."""
        limits = [bounds.decode_bound(LLAMA_3_8B, H100, users).limited_by for users in (295, 296)]

        assert H100.ridge == pytest.approx(295.3, abs=0.05)
        assert bounds.intensity(LLAMA_3_8B, 295) == 295
        assert limits == ["memory", "compute"]

    def test_attainable_arithmetic_is_what_the_bound_says(self):
        """The figure's line and the table's bound are one formula: FLOP/s = 2 x parameters x tokens/s."""
        for users in (1, 10, 100):
            at = bounds.intensity(SMOLLM2, users, 192)
            bound = bounds.decode_bound(SMOLLM2, TWO_CORES, users, 192)

            assert TWO_CORES.attainable(at) == pytest.approx(2 * 134_515_008 * bound.tokens_per_s)


class TestPrefill:
    """A prompt's tokens share one reading of the weights."""

    def test_a_long_prompt_is_bound_by_arithmetic(self):
        """1000 tokens: 2 x (6.980 G x 1000 + 0.525 G) FLOP, the head once, over 989.4 TFLOP/s."""

        assert bounds.prefill_bound_s(LLAMA_3_8B, H100, 1000) == pytest.approx(0.014110, abs=1e-6)

    def test_without_a_head_it_is_two_flop_per_parameter_and_token(self):
        """2 x 10 x 50 FLOP at 100 FLOP/s."""

        assert bounds.prefill_bound_s(Work(1, 0, parameters=10), roof(1e9, 100), 50) == 10

    def test_a_short_prompt_is_bound_by_memory(self):
        """One token: 15.01 GB at 3.35 TB/s."""

        assert bounds.prefill_bound_s(LLAMA_3_8B, H100, 1) == pytest.approx(0.0044806, abs=1e-7)


class TestShare:
    """What was reached of a bound."""

    def test_half_of_the_bound(self):
        """5 of 10 tokens per second."""

        assert bounds.share(5, Bound(10, "memory")) == 0.5
        assert bounds.share_text(0.5) == "50 %"

    def test_above_the_roof_is_said_and_not_cut_off(self):
        """12 of 10: the roof is wrong."""
        found = bounds.share(12, Bound(10, "memory"))

        assert found == 1.2
        assert bounds.share_text(found) == "120 % (above 100 %: the roof is wrong, not the engine)"

    @pytest.mark.parametrize(("limits", "told"), [((9.5, 11.4), "50 %"), ((8, 12.5), "40 to 62 %"), (None, "50 %")])
    def test_of_an_uncertain_roof_it_is_a_range(self, limits, told):
        """From a fifth of the bound on, between the roof's slowest and fastest run."""

        assert bounds.share_text(0.5, Bound(10, "memory", limits)) == told

    def test_the_bound_has_the_range_of_what_limits_it(self):
        """Memory's for one user, arithmetic's for a thousand."""
        work = Work(100, 0, parameters=50)
        wide = replace(roof(1000, 100_000), bandwidth_range=(900, 1300), flops_range=(90_000, 110_000))

        assert bounds.decode_bound(work, wide, 1) == Bound(10, "memory", (9, 13))
        assert bounds.decode_bound(work, wide, 1000) == Bound(1000, "compute", (900, 1100))

    @pytest.mark.parametrize(
        ("busy", "stolen", "said"), [(0.05, 0.0, False), (0.5, 0.0, True), (0.0, 0.1, True), (None, None, False)]
    )
    def test_a_roof_of_a_busy_machine_is_labelled(self, busy, stolen, said):
        """By other programs here, or by other guests of the host; an old record does not say."""
        assert bool(replace(ROOF, busy=busy, stolen=stolen).label) is said

    def test_nothing_measured_has_no_share(self):
        """Not 0 %."""

        assert bounds.share(None, Bound(10, "memory")) is None
        assert bounds.share_text(None) == "none"


@pytest.fixture
def model(tmp_path):
    """Makes a Llama-shaped folder with empty safetensors: ``model(names, config entries)``."""

    def make(names: dict[str, list[int]], **entries) -> models.Model:
        shape = {"num_attention_heads": 2, "hidden_size": 4, "num_hidden_layers": 1, "vocab_size": 10}
        (tmp_path / "config.json").write_text(json.dumps(shape | {"max_position_embeddings": 8} | entries))
        header, end = {}, 0
        for name, sides in names.items():
            size = 2 * sides[0] * sides[1]
            header[name] = {"dtype": "BF16", "shape": sides, "data_offsets": [end, end + size]}
            end += size
        head = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
        (tmp_path / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(end))
        return models.resolve(str(tmp_path))

    return make


class TestWork:
    """What a model asks of the machine, from its files."""

    @pytest.mark.engine
    @pytest.mark.parametrize("form", ["safetensors", "gguf"])
    def test_the_default_model(self, form):
        """134,515,008 values in every form, the tied embedding (49,152 x 576) among them; all bytes are read."""

        assert bounds.work(form) == Work(sizes.weights_bytes(form), 23_040, 134_515_008, 49_152 * 576)

    def test_an_input_embedding_of_its_own_is_not_read(self, model):
        """10 x 4 values are looked up; the head's 10 x 4 and the layer's 4 x 4 are read, two bytes each."""
        untied = model({"model.embed_tokens.weight": [10, 4], "lm_head.weight": [10, 4], "model.layers.0.weight": [4, 4]})

        assert bounds.work("safetensors", untied) == Work(112, 16, parameters=56, head_parameters=40)

    def test_a_tied_embedding_is_read(self, model):
        """It is the head too."""
        tied = model({"model.embed_tokens.weight": [10, 4], "model.layers.0.attn_output.weight": [4, 4]})

        assert bounds.work("safetensors", tied) == Work(112, 16, parameters=56, head_parameters=40)

    def test_experts_are_refused(self, model):
        """A step reads some of them; the formulas say all."""
        with pytest.raises(ModelError, match="has experts.*for dense models"):
            bounds.work("safetensors", model({"model.layers.0.mlp.experts.0.up_proj.weight": [4, 4]}))

    def test_packed_weights_are_refused(self, model):
        """Eight four-bit values may be stored as one."""
        with pytest.raises(ModelError, match="is quantized.*give a Work yourself"):
            bounds.work("safetensors", model({"w": [4, 4]}, quantization_config={"bits": 4}))


def level(users: int, tokens_per_s: float | None, label: str | None = None) -> dict:
    """A level of 100 tokens in and 200 out, whose decode alone is twice as fast as its throughput."""
    spread = tokens_per_s and {"median": tokens_per_s, "low": tokens_per_s / 2, "high": tokens_per_s * 2}
    tpot = tokens_per_s and {key: 0.5 / spread[of] for key, of in (("median", "median"), ("low", "high"), ("high", "low"))}
    lengths = {"prompt_tokens": [100], "output_tokens": [200]}
    return {"users": users, **lengths, "output_tokens_per_s": spread, "tpot_s": tpot, "label": label}


SMALL = Work(weights_bytes=800, kv_bytes_per_token=1, parameters=400)  # with 200 tokens of context, 1000 bytes a step
ROOF = roof(10_000, 1_000_000)


class TestTable:
    """Each engine's share at each number of users."""

    def test_one_user_is_measured_by_tpot(self):
        """2.5 tokens/s with prefill, 5 without; 1000 bytes a step at 10,000 bytes/s allow 10."""
        found = roofline.table({"vllm": [level(1, 2.5)]}, ROOF, {"vllm": SMALL})

        assert list(found.index) == [("vLLM", "bf16", 1)]
        assert dict(found.iloc[0]) == {
            "FLOP/byte": "0.8", "output tokens/s": "5 (2 to 10)", "bound, tokens/s": "10", "limited by": "memory",
            "share of the roof": "50 %",
        }  # fmt: skip

    def test_several_users_are_measured_by_throughput(self):
        """Four users: 1600 bytes a step, 25 tokens/s at most; 20 were reached."""
        found = roofline.table({"vllm": [level(4, 20)]}, ROOF, {"vllm": SMALL}).iloc[0]

        assert (found["output tokens/s"], found["bound, tokens/s"], found["share of the roof"]) == ("20 (10 to 40)", "25", "80 %")

    def test_above_the_roof_is_said(self):
        """30 of 25 tokens/s."""
        found = roofline.table({"vllm": [level(4, 30)]}, ROOF, {"vllm": SMALL})

        assert found["share of the roof"].item() == "120 % (above 100 %: the roof is wrong, not the engine)"

    def test_a_level_without_figures_has_no_share(self):
        """And says why it is no measurement."""
        found = roofline.table(
            {"vllm": [level(4, None, "not a measurement: 4 of 4 failed"), level(4, 20)]}, ROOF, {"vllm": SMALL}
        )

        assert list(found["share of the roof"]) == ["none", "80 %"]
        assert list(found["note"]) == ["not a measurement: 4 of 4 failed", ""]

    def test_arrivals_per_second_have_no_bound(self):
        """Nobody knows how many are decoded together: only the level of four users has a row."""
        arrivals = {**level(4, 20), "users": None, "rate_per_s": 2.0}

        assert list(roofline.table({"vllm": [arrivals, level(4, 20)]}, ROOF, {"vllm": SMALL}).index) == [("vLLM", "bf16", 4)]

    @pytest.mark.engine
    def test_weights_come_from_the_engines_form(self):
        """The default model: Q4_1 is read in fewer bytes than bf16, so its bound is higher."""
        found = roofline.reached({"llama-cpp": [level(1, 10)], "llama-cpp-bf16": [level(1, 10)]}, TWO_CORES)
        by_hand = [40e9 / (sizes.weights_bytes(form) + 200 * 23_040) for form in ("gguf", "gguf-bf16")]

        assert found[0].bound == Bound(pytest.approx(95e9 / (2 * 134_515_008)), "compute")
        assert by_hand[0] > found[0].bound.tokens_per_s
        assert found[1].bound == Bound(pytest.approx(by_hand[1]), "memory")


class TestFigure:
    """The roof, and a line per engine under it."""

    levels = {"vllm": [level(1, 2.5), level(4, 30)], "transformers": [level(1, 1), level(4, 12)], "sglang": [level(4, None)]}
    levels["llama-cpp"] = [level(1, 6), level(4, 12)]

    def drawn(self):
        return plots.roofline(roofline.reached(self.levels, ROOF, dict.fromkeys(self.levels, SMALL)), ROOF).axes[0]

    def test_points_are_intensity_and_arithmetic(self):
        """800 FLOP a token: 5 tokens/s at 0.8 FLOP/byte, then 30 at 2; in the engine's colour and marker."""
        lines = {line.get_color(): line for line in self.drawn().lines}
        vllm = lines[engines.get("vllm").colour]

        assert (list(vllm.get_xdata()), list(vllm.get_ydata())) == ([0.8, 2.0], [4_000, 24_000])
        assert vllm.get_marker() == engines.get("vllm").marker

    def test_the_line_is_the_roof(self):
        """Up to the ridge, 100 FLOP/byte, and flat from there."""
        line = next(line for line in self.drawn().lines if line.get_color() == "black")
        (left, ridge, right), heights = line.get_xdata(), list(line.get_ydata())

        assert left < 0.8 < ridge == 100 < right
        assert heights == [10_000 * left, 1_000_000, 1_000_000]

    def test_names_say_the_share_and_stand_apart(self):
        """One that is above the roof at its last point, or at its first; one without figures is not drawn."""
        heights = {text.get_text(): text.xyann[1] for text in self.drawn().texts if "of the roof" in text.get_text()}

        assert heights.keys() == {
            "vLLM, 120 % of the roof: the roof is wrong", "HF Transformers, 48 % of the roof at its right end",
            "llama.cpp, 120 % of the roof: the roof is wrong",
        }  # fmt: skip
        low, middle, high = sorted(heights.values())
        assert min(middle - low, high - middle) >= plots.LABEL_GAP - 1e-9

    def test_axes_have_units(self):
        """FLOP per byte across, FLOP/s up; the roof's two heights with theirs."""
        axes = self.drawn()

        assert (axes.get_xlabel(), axes.get_ylabel()) == ("FLOP per byte read; 1 and 4 users", "FLOP/s")
        assert {"memory: 10 kB/s", "compute: 1 MFLOP/s"} <= {text.get_text() for text in axes.texts}


@pytest.fixture(scope="module")
def printed() -> dict:
    """What ``python -m helpers.lessons.memory.roofline --json`` prints here, on the CPU."""
    command = [sys.executable, "-m", "helpers.lessons.memory.bandwidth", "--device", "cpu", "--json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class TestKept:
    """One roof for a machine."""

    @pytest.fixture
    def mock_measure(self, monkeypatch, tmp_path):
        """Roofs that are made up, each wider than the one before; and a cache of this test."""
        made = (replace(ROOF, bandwidth_bytes_per_s=n, busy=busy) for n, busy in ((1, 0.9), (2, 0.0), (3, 0.0)))
        monkeypatch.setattr(bandwidth, "measure", lambda device, kernel: next(made))
        monkeypatch.setattr(bandwidth.kernels, "installed", lambda name: False)  # no engine is needed to keep a roof
        monkeypatch.setattr(bandwidth.paths, "cache_dir", lambda: tmp_path / "new")

    def test_it_is_measured_until_the_machine_was_idle_and_then_kept(self, mock_measure):
        """A busy machine's is measured again, an idle one's only if it is asked for."""
        assert [bandwidth.roof(again=again).bandwidth_bytes_per_s for again in (False, False, False, True)] == [1, 2, 2, 3]


@pytest.mark.whole
class TestMeasure:
    """A real measurement on this machine, with all of its cores."""

    def test_the_roof_is_the_best_kernel(self, printed):
        """Every kernel has a figure, and the highest is the roof."""
        found = Roof(**printed)

        assert found.bandwidth_kernels.keys() == {"sum", "copy", "triad", "dot", "sgemv"}
        assert min(*found.bandwidth_kernels.values(), *found.flops_kernels.values()) > 0
        assert found.bandwidth_bytes_per_s == max(found.bandwidth_kernels.values())
        assert found.flops_per_s == max(found.flops_kernels.values())
        assert found.bandwidth_range[0] <= found.bandwidth_bytes_per_s <= found.bandwidth_range[1]
        assert found.flops_range[0] <= found.flops_per_s <= found.flops_range[1]

    def test_it_says_how_it_was_measured(self, printed):
        """All cores this process may use, and arrays that no cache holds."""

        assert (printed["device"], printed["threads"]) == ("cpu", machine.cores())
        assert printed["array_bytes"] >= 4 * (bandwidth.cache_bytes() or 0)
        assert printed["load_average"] >= 0
        assert 0 <= printed["busy"] <= 1 and 0 <= printed["stolen"] <= 1

    def test_a_record_gives_the_roof_back(self, printed):
        """To JSON and back."""
        found = Roof(**printed)

        assert Roof(**json.loads(json.dumps(found.to_dict()))) == found

    def test_text_names_every_kernel(self, printed):
        """A line each, the best and the ridge."""
        lines = bandwidth.as_text(Roof(**printed)).splitlines()
        named = {line.rpartition("  ")[0].strip() for line in lines}

        assert named >= {*printed["bandwidth_kernels"], *printed["flops_kernels"], "the roof", "ridge, FLOP/byte"}

    @pytest.mark.gpu
    @pytest.mark.skipif(not machine.has_gpu(), reason="no NVIDIA GPU here")
    def test_a_gpu(self):
        """Measured in an interpreter that has torch; its arrays exceed its cache."""
        found = bandwidth.measure("cuda")

        assert found.device != "cpu"
        assert found.threads is None
        assert found.bandwidth_bytes_per_s == max(found.bandwidth_kernels.values()) > 0
        assert found.flops_per_s == max(found.flops_kernels.values()) > 0

    def test_a_gpu_that_is_not_there(self, monkeypatch):
        """One line with the next step, and nothing is measured."""
        monkeypatch.setattr(machine, "has_gpu", lambda: False)

        with pytest.raises(RooflineError, match="no NVIDIA GPU here: measure the cpu instead"):
            bandwidth.measure("cuda")

    def test_an_unknown_device(self):
        """Named, with what there is."""
        with pytest.raises(ValueError, match="device='tpu': choose cpu or cuda"):
            bandwidth.measure("tpu")


class TestKernels:
    """How kernels are timed."""

    def test_one_cache_counts_once(self, tmp_path):
        """Four cores, a 1 MiB L2 each and an L3 of 32 MiB for every two: 64 MiB."""
        for cpu in range(4):
            pair = f"{cpu // 2 * 2}-{cpu // 2 * 2 + 1}"
            for level_, cores, size in (("2", str(cpu), "1024K"), ("3", pair, "32768K")):
                index = tmp_path / f"cpu{cpu}" / "cache" / f"index{level_}"
                index.mkdir(parents=True)
                for name, value in (("level", level_), ("shared_cpu_list", cores), ("size", size)):
                    (index / name).write_text(value + "\n")

        assert bandwidth.cache_bytes(tmp_path) == 64 * MIB

    def test_a_system_that_names_no_cache(self, tmp_path):
        """Not 0 bytes."""

        assert bandwidth.cache_bytes(tmp_path) is None

    def test_arrays_that_do_not_fit_are_refused(self, monkeypatch):
        """With a mock of a cache of a PiB."""
        monkeypatch.setattr(bandwidth, "cache_bytes", lambda: 2**50)

        with pytest.raises(RooflineError, match="GiB of arrays do not fit the .* GiB that are free"):
            bandwidth.array_bytes(1)

    def test_jobs_run_side_by_side(self):
        """Each waits for the other."""
        meeting = threading.Barrier(2, timeout=10)

        assert min(bandwidth.times([meeting.wait, meeting.wait])) > 0

    @pytest.mark.parametrize("place", [0, 1])
    def test_a_job_that_fails_keeps_no_other_waiting(self, place):
        """Its error comes out, whichever job it is."""

        def fail():
            raise MemoryError("no room")

        with pytest.raises(MemoryError, match="no room"):
            bandwidth.times([(fail, lambda: None)[place], (lambda: None, fail)[place]])

    def test_products_grow_until_one_takes_long(self):
        """2 n^3 FLOP each; with times made up here, the second takes longer than 0.1 s and is the last."""
        found = bandwidth._products("x", {1024: [0.05], 2048: [0.2]}.get)

        assert found == {"x 1024": [pytest.approx(2 * 1024**3 / 0.05)], "x 2048": [pytest.approx(2 * 2048**3 / 0.2)]}


@pytest.mark.engine
def test_the_environment_of_a_framework_measures_too():
    """In the interpreter of transformers torch's bf16 joins numpy's float32."""
    found = bandwidth.measure("cpu", kernel="transformers")

    assert any(name.startswith("bf16 (torch)") for name in found.flops_kernels)
    assert any(name.startswith("sgemm") for name in found.flops_kernels)
