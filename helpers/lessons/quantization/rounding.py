"""One matrix in INT4, three ways to choose the integers: to the nearest, by AWQ, by GPTQ; all in blocks with one scale.

AWQ and GPTQ look at ``x``, inputs of the layer (tokens, columns of the matrix), and want a small error of its *output*.
"""

from __future__ import annotations

import numpy as np

GROUP = 32
LARGEST = 7  # of INT4 without -8, so that zero is a level
DAMPING = 0.01  # GPTQ's default: a share of the mean diagonal, so that the matrix can be inverted


def nearest(w: np.ndarray, group: int = GROUP) -> np.ndarray:
    """``w`` (rows, columns), each weight at the nearest level of its block of ``group`` columns."""
    blocks = w.reshape(-1, group)
    scale = _scale(blocks)[:, None]
    return (np.round(blocks / scale) * scale).reshape(w.shape)


def _scale(blocks: np.ndarray) -> np.ndarray:
    """The step of each block, from its largest weight; 1 for a block of zeros."""
    largest = abs(blocks).max(1)
    return np.where(largest > 0, largest / LARGEST, 1)


def awq(w: np.ndarray, x: np.ndarray, group: int = GROUP, steps: int = 10) -> np.ndarray:
    """``w`` rounded to the nearest after columns with large inputs were scaled up, and scaled back.

    The scale is a power of each column's mean input size; of ``steps`` + 1 powers from 0 to 1 the one with the smallest
    error of the output is taken. A layer before would hold the inverse. Lin et al., 2023.
    """
    size = np.maximum(abs(x).mean(0), 1e-8)
    tried = [nearest(w * size ** (step / steps), group) / size ** (step / steps) for step in range(steps + 1)]
    return min(tried, key=lambda rounded: output_error(w, rounded, x))


def gptq(w: np.ndarray, x: np.ndarray, group: int = GROUP) -> np.ndarray:
    """``w`` rounded column after column; the columns still to come take over each error, as the inputs allow.

    Which column can make up for which follows from ``x.T @ x``. Frantar et al., 2022.
    """
    together = x.T.astype(np.float64) @ x
    together += DAMPING * np.diag(together).mean() * np.eye(len(together))
    pull = np.linalg.cholesky(np.linalg.inv(together)).T.astype(w.dtype)
    w, done = w.copy(), np.zeros_like(w)
    for i in range(w.shape[1]):
        if i % group == 0:
            scale = _scale(w[:, i : i + group])
        done[:, i] = np.clip(np.round(w[:, i] / scale), -LARGEST, LARGEST) * scale
        w[:, i + 1 :] -= np.outer((w[:, i] - done[:, i]) / pull[i, i], pull[i, i + 1 :])
    return done


def output_error(w: np.ndarray, rounded: np.ndarray, x: np.ndarray) -> float:
    """How far the output for the inputs ``x`` moves, as a share of its size (root mean square over root mean square)."""
    return float(np.linalg.norm((rounded - w) @ x.T) / np.linalg.norm(w @ x.T))
