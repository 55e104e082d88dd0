"""Fig. 7: the six corruptions at severity 1, 3 and 5, on one image of the test set.

Tab. 5 and 11 use these corruptions.
"""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.utils.errors import UserError

EVALUATION = "corruptions"
CORRUPTIONS = ("impulse_noise", "zoom_blur", "snow", "frost", "jpeg_compression", "brightness")
SEVERITIES = (1, 3, 5)


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame, images: dict[str, np.ndarray]) -> Figure:
    """The first of the images, clean and corrupted.

    Args:
        rows: not needed.
        images: "clean/0", "snow/3" and so on -> uint8 (n, H, W, 3).
    """
    names = {f"{corruption}/{severity}" for corruption in CORRUPTIONS for severity in SEVERITIES}
    if missing := sorted({"clean/0", *names} - set(images)):
        raise UserError(
            f"fig07 has no images {', '.join(missing)}: make them with `spaced-kd prepare dataset=... --corrupt N`"
        )
    drawing = Figure(figsize=(6.6, 2.9))
    grid = drawing.add_gridspec(len(SEVERITIES), len(CORRUPTIONS) + 1)
    clean = drawing.add_subplot(grid[0, 0])
    _show(clean, images["clean/0"])
    clean.set_title("clean")
    for down, severity in enumerate(SEVERITIES):
        for across, corruption in enumerate(CORRUPTIONS):
            axes = drawing.add_subplot(grid[down, across + 1])
            _show(axes, images[f"{corruption}/{severity}"])
            if down == 0:
                axes.set_title(corruption.replace("_", "\n"))
            if across == 0:
                axes.set_ylabel(f"severity {severity}")
    return drawing


def _show(axes: Axes, images: np.ndarray) -> None:
    axes.imshow(images[0], interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
