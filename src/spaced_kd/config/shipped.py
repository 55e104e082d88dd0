"""Paths of the workflow, the studies and the profiles: in a checkout, or below the package that a wheel installs."""

from spaced_kd.config.registry import ROOT

IN_WHEEL = ROOT / "shipped"
INSTALLED = IN_WHEEL.is_dir()
FOLDER = IN_WHEEL if INSTALLED else ROOT.parents[1]
SNAKEFILE = FOLDER / "workflow" / "Snakefile"
STUDIES, EXPERIMENTS = FOLDER / "config" / "studies", FOLDER / "config" / "experiments"
PROFILES = FOLDER / "profiles"
