"""Keep a finished run although one of its sources has changed, with the user's reason."""

import json
from pathlib import Path

from spaced_kd.config import sources
from spaced_kd.training import provenance
from spaced_kd.training.run_folder import read_spec
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json, write_safely


def accept(run: str, reason: str, results: Path) -> list[str]:
    """Write into a run's description that its numbers are valid for the current sources; returns the changed sources.

    Args:
        run: its id, or its folder.
        reason: why they are still valid.
        results: folder of all results.

    Raises:
        UserError: there is no such run, or the reason is empty.
    """
    if not reason.strip():
        raise UserError('--reason is empty: give why the numbers stand, as --reason "only an error message changed"')
    spec = read_spec(run, results)
    path = results / "runs" / spec.id / "run.json"
    described = read_json(path, dict)
    if changed := sources.changes(spec, described):
        commit, dirty = provenance.commit()
        entry = {"reason": reason, "changed": changed, "commit": commit, "dirty": dirty} | sources.of_run(spec)
        described["accepted"] = [*described.get("accepted", ()), entry]
        write_safely(path, json.dumps(described, indent=1).encode())
    return changed
