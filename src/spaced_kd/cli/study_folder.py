"""Writes a study folder, in which `snakemake` runs a study anywhere with an installed package."""

import argparse
import shutil
import tempfile
from pathlib import Path

from spaced_kd.config import registry, shipped
from spaced_kd.config.study import load_study
from spaced_kd.utils.errors import UserError

SNAKEFILE = """# `snakemake` here runs the study of {study}.yaml by the workflow of the installed package spaced-kd.
from pathlib import Path

from spaced_kd.config import shipped

if not config:

    configfile: str(Path(workflow.basedir) / "{study}.yaml")


include: str(shipped.SNAKEFILE)


# Snakemake takes no default target from an included file
rule study:
    default_target: True
    input:
        rules.all.input,
    localrule: True
"""

README = """# Study {study}

`{study}.yaml` describes the study. The workflow comes from the installed package, so this folder can be anywhere.

    snakemake -n                                # list the jobs
    snakemake                                   # train, evaluate, and draw the tables and figures
    snakemake --report results/{study}/report.html    # after the study has finished
    snakemake --profile workstation             # on several GPUs, after you have edited workstation/profile.yaml
    snakemake --cores 8 --profile slurm         # on a cluster, after you have edited slurm/profile.yaml

- `data/`: the published files of the datasets. Digits need none.
- `results/`: runs, rows, tables and figures. A run that was stopped continues with the same command.
- `profiles/default/profile.yaml`: options of every `snakemake` here. `slurm/profile.yaml`: options of a cluster.
  `sbatch slurm/one_job.sh` sends a study of short trainings as one job.

`spaced-kd plan {study}.yaml` gives the time and the disk space that the study takes.
"""


def init_command(arguments: argparse.Namespace) -> None:
    """Writes a study folder."""
    write(arguments.folder, arguments.study)
    print(f"wrote {arguments.folder}: `snakemake` runs the study there; README.md lists the commands")


def names() -> dict[str, Path]:
    """Studies and experiments that the package has, by name; a study comes before an experiment of its name."""
    paths = [*sorted(shipped.EXPERIMENTS.glob("*.yaml")), *sorted(shipped.STUDIES.glob("*.yaml"))]
    return {path.stem: path for path in paths}


def write(folder: Path, name: str) -> None:
    """Write a study folder for a study or an experiment of the package.

    Raises:
        UserError: the folder exists, or there is no such study; nothing is written then.
    """
    known = names()
    if name not in known:
        raise UserError(f"--from {name}: none of the studies {', '.join(known)}{registry.hint(name, known)}")
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists: name a new folder")
    if not folder.parent.is_dir():
        raise UserError(f"{folder.parent} is not a folder: create it first")
    study = load_study(known[name]).name
    with tempfile.TemporaryDirectory(prefix=".spaced-kd-", dir=folder.parent) as made:
        _fill(Path(made) / "study", study, known[name])
        (Path(made) / "study").rename(folder)


def _fill(folder: Path, study: str, source: Path) -> None:
    (folder / "data").mkdir(parents=True)
    shutil.copyfile(source, folder / f"{study}.yaml")
    for profile, target in (("default", "profiles/default"), ("slurm", "slurm"), ("workstation", "workstation")):
        (folder / target).mkdir(parents=True)
        for path in (shipped.PROFILES / profile).iterdir():
            shutil.copyfile(path, folder / target / path.name)
    (folder / "Snakefile").write_text(SNAKEFILE.format(study=study), "utf-8")
    (folder / "README.md").write_text(README.format(study=study), "utf-8")
