# Spaced KD: train networks whose teacher walks some steps ahead, evaluate them, and set the paper's numbers beside ours.
#
#   snakemake                                         config/demo.yaml: minutes on a laptop
#   snakemake --configfile config/tiny_small.yaml     another study
#   snakemake tab06 --configfile config/demo.yaml     one table or figure alone
#   snakemake --report results/demo/report.html       after a finished study

import sys
from pathlib import Path

from snakemake.utils import min_version

from spaced_kd.catalog import ROOT

min_version("9.0")

# the commands of the environment that Snakemake itself runs in, whether it is activated or not
# and these packages alone: another version on PYTHONPATH, or in a user's own folder, would give other numbers
SOURCES = "" if ROOT.is_relative_to(sys.prefix) else ROOT.parent
shell.prefix(
    f'set -euo pipefail; export PATH="{Path(sys.executable).parent}:$PATH" PYTHONPATH="{SOURCES}" PYTHONNOUSERSITE=1;'
    " unset PYTHONHOME PYTHONSTARTUP; "
)

if not config:

    configfile: "config/demo.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/theory.smk"
include: "workflow/rules/results.smk"


onstart:
    owner.claim(STUDY.name, CONFIGS, Path("results"))


rule all:
    default_target: True
    input:
        collected(STUDY.name),
        drawn(),
