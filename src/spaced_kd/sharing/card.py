"""The model card of a run: metadata for model hubs, and the information for judging and loading the network."""

from typing import Any

import scipy

from spaced_kd.analysis import human_names
from spaced_kd.analysis.arms import Arm
from spaced_kd.config.labels import labels
from spaced_kd.config.run_spec import RunSpec

LICENCE = "apache-2.0"
TAGS = ["knowledge-distillation", "spaced-kd", "reproducibility"]
TEXT = """
# {id}

{network}, trained on {dataset} by {arm}: seed {seed}, {epochs} epochs, reading `{reading}` of
[*Right Time to Learn*](https://arxiv.org/abs/2502.06192).

| | |
|:---|:---|
| Top-1 test accuracy | {accuracy:.2f} % after the last epoch |
| 95 % interval | [{low:.2f}, {high:.2f}], after Wilson, over {images} test images |
| Seeds | this one alone; the interval does not contain the spread over seeds |
| Recipe | `{overrides}` |
| Cost | {cost} |
| Machine | {machine} |
| Commit of the code | `{commit}` |
| Data | `{data}`, SHA-256 `{data_sha256}` |
| Licence | {licence} for the weights; the images have their own |

## Load it

```python
from spaced_kd.api import load_network
network, normalise = load_network("{id}")
logits = network(normalise(images))  # uint8 (batch, height, width, 3) -> (batch, classes)
```

## Use it in a study

`spaced-kd get {id}` checks every file and
puts the run among the results. Studies count it as finished, and
`spaced-kd verify --reevaluate` predicts the test images again.
"""


def card(spec: RunSpec, described: dict[str, Any], rows: list[dict[str, Any]], images: int, licence: str) -> str:
    """The card as Markdown with a YAML head; huggingface_hub writes the head, without network.

    Args:
        spec: the run.
        described: its run.json.
        rows: its rows.json.
        images: number of test images.
        licence: identifier of the licence of the weights.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    labelled = labels(spec)
    accuracy = next(row["value"] for row in rows if row["metric"] == "accuracy" and row["selection"] == "last")
    interval = scipy.stats.binomtest(round(accuracy * images / 100), images).proportion_ci(method="wilson")
    provenance = described["provenance"]
    result = EvalResult(
        task_type="image-classification",
        dataset_type=spec.dataset,
        dataset_name=human_names.plugin_name(labelled["dataset"]),
        dataset_split="test",
        metric_type="accuracy",
        metric_name="top-1 test accuracy after the last epoch, %",
        metric_value=round(accuracy, 4),
        metric_args={"interval_95": [round(100 * float(limit), 4) for limit in interval], "seeds": 1, "images": images},
    )
    data = ModelCardData(
        license=licence,
        library_name="spaced-kd",
        pipeline_tag="image-classification",
        tags=[*TAGS, spec.dataset, spec.network, spec.method],
        metrics=["accuracy"],
        model_name=spec.id,
        eval_results=[result],
        reading=labelled["protocol"],
        commit=_commit(provenance),
    )
    text = TEXT.format(
        id=spec.id,
        network=human_names.plugin_name(labelled["network"]),
        dataset=human_names.plugin_name(labelled["dataset"]),
        arm=Arm(labelled["method"], labelled["interval"]).name,
        seed=spec.seed,
        epochs=spec.epochs,
        reading=labelled["protocol"],
        accuracy=accuracy,
        low=100 * interval.low,
        high=100 * interval.high,
        images=images,
        overrides=" ".join(spec.overrides()),
        cost=_cost(described),
        machine=provenance.get("accelerator") or provenance.get("processor") or "not recorded",
        commit=_commit(provenance),
        data=spec.data_id,
        data_sha256=provenance["data_sha256"],
        licence=licence,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n{text}"))


def _commit(provenance: dict[str, Any]) -> str:
    return provenance["commit"] + ("-dirty" if provenance.get("dirty") else "")


def _cost(described: dict[str, Any]) -> str:
    """E.g. "2.1e+12 FLOPs, 12 s of wall clock"."""
    flops = sum((described.get("training_flops") or {}).values())
    return f"{flops:.2g} FLOPs of training, {described['wall_seconds']:.0f} s of wall clock"
