"""Evaluations: corrupted test sets, and the trace of the Hessian beside a naive loop of equal accuracy."""

import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.machine import precisions, seconds
from benchmarks.workload import prepare, run
from spaced_kd.config.paths import ResultPaths
from spaced_kd.data import dataset
from spaced_kd.data.dataset import Data
from spaced_kd.evaluation.evaluate import finished_network
from spaced_kd.evaluation.evaluators import hessian_trace
from spaced_kd.training.loop import train
from spaced_kd.utils.processes import processors
from spaced_kd.utils.seeding import generator

WHOLE, SAMPLE = 10_000, 1_000  # test images asked for, and those that are made and timed
ERROR = 0.05  # standard error of the trace, as a share of it
IMAGES, SKETCH, PROBES = 50, 8, 20


def corrupted(times: int, source: Path, paths: ResultPaths) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds for the six corruptions of 10,000 images of 32 px in three severities, from those for 1,000."""
    from spaced_kd.data.corruptions import NAMES, SEVERITIES, corrupt_images

    spec = run(dataset__size=32)
    prepare(spec, source, paths)
    images = dataset.load(paths.data(spec)).images["test"].numpy()
    corrupt_images(images[:1], np.arange(1))  # the pictures of frost are read
    taken = []
    for number in range(times):
        chosen = np.arange(number * SAMPLE, (number + 1) * SAMPLE)
        begun = time.perf_counter()
        corrupt_images(images[chosen], chosen, NAMES, SEVERITIES, workers=processors())
        taken.append(WHOLE / SAMPLE * (time.perf_counter() - begun))
        print(f"  corrupted images, {number + 1} of {times}", flush=True)
    return {"corrupted": taken}, {"processes": processors(), "images timed": SAMPLE}


def trace(
    device: torch.device, pairs: int, source: Path, paths: ResultPaths, *, width: float = 0.25, epochs: int = 10
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Time to the same standard error: products of each, as their measured spread asks for, times seconds of each.

    Args:
        device: where.
        pairs: timings of a product of either.
        source, paths: of data and results.
        width, epochs: of the ResNet-18 that is trained first.
    """
    spec = run(network__width=width, epochs=epochs, precision=precisions(device)[0], eval_every=5, dataset__size=32)
    prepare(spec, source, paths)
    train(spec, paths.results, device=str(device))
    network, images = finished_network(spec.id, paths.results, device=str(device))
    naive, ours = [], []
    for number in range(pairs):
        naive.append(seconds(lambda number=number: naive_form(network, images, number), device))
        settings = {"images": IMAGES, "probes": hessian_trace.BLOCK, "seed": number}
        ours.append(
            seconds(lambda settings=settings: list(hessian_trace.evaluate(network, images, **settings)), device)
            / hessian_trace.BLOCK
        )
        print(f"  trace, pair {number + 1} of {pairs}", flush=True)
    (plain,) = hessian_trace.evaluate(network, images, seed=0, images=IMAGES, probes=2 * PROBES)
    (caught,) = hessian_trace.evaluate(network, images, seed=0, images=IMAGES, probes=PROBES, sketch=SKETCH)
    products = [(row["stderr"] / row["value"] / ERROR) ** 2 * row["probes"] for row in (plain, caught)]
    products = [products[0], max(2.0, products[1]) + 2 * SKETCH]
    ratios = [products[0] * before / (products[1] * after) for before, after in zip(naive, ours, strict=True)]
    about = {"products": products, "seconds of a product": [median(naive), median(ours)]}
    return {"trace": ratios}, about | {"traces": [[row["value"], row["stderr"]] for row in (plain, caught)]}


def naive_form(network: nn.Module, images: Data, probe: int) -> float:
    """vᵀ H v by differentiating the gradient once more, a probe at a time."""
    chosen = images.subset("train", IMAGES)
    inputs, labels = images.normalise(images.images["train"][chosen]), images.labels["train"][chosen]
    theta = list(network.parameters())
    loss = F.cross_entropy(network(inputs), labels)
    gradient = torch.autograd.grad(loss, theta, create_graph=True)
    draws = generator(0, "naive probe", probe)
    v = [torch.from_numpy(2.0 * draws.integers(0, 2, p.shape) - 1).to(p) for p in theta]
    product = torch.autograd.grad(gradient, theta, v)
    return sum(float((a * b).sum()) for a, b in zip(v, product, strict=True))
