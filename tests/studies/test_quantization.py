"""The record of GGUF types as a table."""

from helpers.studies import quantization

ROOF = {
    "device": "cpu", "bandwidth_bytes_per_s": 40e9, "flops_per_s": 1e9, "bandwidth_kernels": {}, "flops_kernels": {},
    "threads": 2, "load_average": 0.0, "array_bytes": 1,
}  # fmt: skip


def record(**roof) -> dict:
    """One type of 1 GB that decodes 20 tokens/s: half of what 40 GB/s allow."""
    quality = {f"{name}{end}": None for name in ("perplexity", "ratio", "kl", "top1") for end in ("", "_se")}
    return {
        "contents": {"Q4_0": {"tensors_bytes": 1_000_000_000, "file_bytes": 1_000_000_000, "values": 2_000_000_000}},
        "quality": {"Q4_0": quality}, "decode_tokens_per_s": {"Q4_0": {"median": 20.0, "low": 20.0, "high": 20.0}},
        "loads": {"Q4_0": {"load_s": 1.0}}, "greedy": {}, "kv_bytes_per_token": 1, "roof": ROOF | roof,
    }  # fmt: skip


def share(**roof) -> str:
    return quantization.table(record(**roof)).loc["Q4_0", "share of the bandwidth"]


def test_a_share_of_an_uncertain_roof_is_a_range():
    """As in the record of throughput; the arithmetic's roof has no say in it."""
    assert share() == "50 %"
    assert share(bandwidth_range=[38e9, 41e9]) == "50 %"
    assert share(bandwidth_range=[32e9, 50e9]) == "40 to 62 %"
