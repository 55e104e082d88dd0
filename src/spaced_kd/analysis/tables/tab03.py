"""Tab. 3: online KD against Spaced KD with other loss functions.

Top-1 test accuracy in percent at the last epoch, mean ± standard deviation over seeds (number of seeds). Δ is the mean
of the differences seed by seed, in percentage points. The paper does not say which loss its functions replace: they
stand here for the soft loss, between logits, and for the feature loss; kl and mse are the defaults of the two.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import ONLINE, SPACED, Contrast
from spaced_kd.analysis.layout import layout
from spaced_kd.config.labels import Label

DEFAULTS = {"soft_loss": "kl", "feature_loss": "mse"}


def table(rows: DataFrame) -> DataFrame:
    """Accuracy of online KD and Spaced KD with each loss, and the paired difference."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    methods = [Label.read(method) for method in rows["method"]]
    of_a_loss = [method.name == ONLINE.method and set(method.settings) <= set(DEFAULTS) for method in methods]
    losses = {key: [method.settings.get(key, default) for method in methods] for key, default in DEFAULTS.items()}
    shown = rows.assign(**losses)[of_a_loss].assign(method=ONLINE.method)
    return layout(
        shown, "tab03", [ONLINE, SPACED, Contrast(SPACED, ONLINE)], filters, keys=("dataset", "network", *DEFAULTS)
    )
