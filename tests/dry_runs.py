"""Dry runs of the workflow as processes of their own that start with Snakemake imported: each costs a second less."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")  # a process that imports once, and becomes each dry run by fork
SERVER.set_forkserver_preload(["snakemake.cli", "snakemake_executor_plugin_slurm", "dry_runs"])


def _become(folder: Path, arguments: list[str], environment: dict[str, str]) -> None:
    """What `python -m snakemake WORDS` does, in that folder; its output goes to two files there."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["snakemake", *arguments]
    for stream, name in ((sys.stdout, ".stdout"), (sys.stderr, ".stderr")):
        with (folder / name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    from snakemake.cli import main

    main(arguments)


def dry_run(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess:
    """Exit status and output of such a process."""
    process = SERVER.Process(target=_become, args=(folder, arguments, dict(os.environ)))
    process.start()
    process.join()
    result = [(folder / name).read_text() for name in (".stdout", ".stderr")]
    return subprocess.CompletedProcess(arguments, process.exitcode, *result)
