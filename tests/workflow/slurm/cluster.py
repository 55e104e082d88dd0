"""A real Slurm here, with pretended CPUs and GPUs: python tests/workflow/slurm/cluster.py start | stop | status.

Needs root. Installs Debian's packages where they lack, writes /etc/slurm, and starts munged, slurmctld and slurmd
without systemd and without cgroups. What runs already is kept. Files lie in /var/local/spaced-kd-slurm.

The configuration is /etc/slurm/slurm.conf, because Snakemake's jobs lose the variable SLURM_CONF on their way.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HOME = Path("/var/local/spaced-kd-slurm")
NODE = socket.gethostname().partition(".")[0]
CPUS, GPUS, SHARDS = 8, 2, 4  # pretended; shards per GPU
DAEMONS = ("slurmd", "slurmctld", "munged")  # in the order in which they stop
PACKAGES = {"slurmctld": "slurmctld", "slurmd": "slurmd", "squeue": "slurm-client", "munged": "munge"}

SLURM_CONF = """\
ClusterName=toy
SlurmctldHost={node}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
# neither cgroups nor pinning: any container will do; too much memory still ends a job
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
# CPUs, memory and GPUs are counted, though the machine may have fewer
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu,shard
# a toy answers at once, and remembers its jobs for an hour, so that squeue can still tell how they ended
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
MinJobAge=3600
KillWait=10
CompleteWait=0
JobRequeue=1
# who comes through the partition `urgent` has a running job run again later
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=60
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={home}/jobs.txt
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:fake:{gpus},shard:{shards} State=UNKNOWN
PartitionName=cpu Nodes={node} Default=YES MaxTime=1-00:00:00 DefaultTime=10 State=UP
PartitionName=gpu Nodes={node} MaxTime=1-00:00:00 DefaultTime=10 State=UP
PartitionName=urgent Nodes={node} MaxTime=1-00:00:00 DefaultTime=10 State=UP PriorityTier=10
"""


def start() -> None:
    """From nothing in seconds; at once where it runs."""
    _install()
    for folder in ("state", "spool", "munge", "dev"):
        (HOME / folder).mkdir(parents=True, exist_ok=True)
    _munge()
    changed = _configure()
    for name, command in (("slurmctld", ["slurmctld"]), ("slurmd", ["slurmd", "-N", NODE])):
        if changed:
            _stop(name)
        if not _pid(name):
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, start_new_session=True)
        if name == "slurmctld":
            _wait("the controller", lambda: "is UP" in _output("scontrol", "ping"))
    _wait("the node", _node_is_up)
    print(f"Slurm is up: {CPUS} CPUs, {GPUS} pretended GPUs of {SHARDS} shards each")


def stop() -> None:
    """End all jobs and daemons."""
    subprocess.run(["scancel", "--user", "root"], check=False, timeout=20)
    for name in DAEMONS:
        _stop(name)


def status() -> None:
    """Which daemons run, and what the node offers."""
    for name in DAEMONS:
        print(name, _pid(name) or "down")
    print(_output("sinfo", "-N", "-o", "%N %T %c CPUs %m MB %G"))


def _install() -> None:
    lacking = [package for command, package in PACKAGES.items() if not shutil.which(command)]
    if not lacking:
        return
    apt = {"env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}, "stdout": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-qq"], check=True, **apt)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *lacking], check=True, **apt)


def _munge() -> None:
    key, socket_file = HOME / "munge" / "key", Path("/run/munge/munge.socket.2")
    if _pid("munged"):
        return
    if not key.exists():
        key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    key.parent.chmod(0o700)
    socket_file.parent.mkdir(exist_ok=True)
    socket_file.parent.chmod(0o755)
    files = {"key-file": key, "socket": socket_file, "pid-file": HOME / "munged.pid", "log-file": HOME / "munged.log"}
    files["seed-file"] = HOME / "munge" / "seed"
    options = [f"--{option}={path}" for option, path in files.items()]
    subprocess.run(["munged", "--force", *options], check=True, stderr=subprocess.DEVNULL)
    _wait("munge", lambda: subprocess.run("munge -n | unmunge > /dev/null 2>&1", shell=True).returncode == 0)


def _configure() -> bool:
    """Write /etc/slurm; whether the configuration is another than before."""
    gpus = [HOME / "dev" / f"gpu{number}" for number in range(GPUS)]
    for gpu in gpus:  # a second /dev/null, which nobody opens
        if not gpu.exists():
            os.mknod(gpu, 0o666 | 0o020000, os.makedev(1, 3))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    slurm = SLURM_CONF.format(
        node=NODE, home=HOME, cpus=CPUS, gpus=GPUS, shards=GPUS * SHARDS, memory=int(memory * 0.75)
    )
    gres = ["AutoDetect=off", *(f"Name=gpu Type=fake File={gpu}" for gpu in gpus), f"Name=shard Count={GPUS * SHARDS}"]
    files = {Path("/etc/slurm/slurm.conf"): slurm, Path("/etc/slurm/gres.conf"): "\n".join(gres) + "\n"}
    before = {path: path.read_text() if path.exists() else "" for path in files}
    for path, content in files.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    hosts = Path("/etc/hosts")
    if subprocess.run(["getent", "hosts", NODE], stdout=subprocess.DEVNULL).returncode:
        hosts.write_text(hosts.read_text() + f"127.0.0.1 {NODE}\n")
    return before != files


def _node_is_up() -> bool:
    state = _output("sinfo", "-h", "-N", "-o", "%T")
    if "down" in state or "drain" in state:
        subprocess.run(
            ["scontrol", "update", f"nodename={NODE}", "state=resume"], check=False, stderr=subprocess.DEVNULL
        )
    return any(word in state for word in ("idle", "mixed", "allocated"))


def _pid(name: str) -> int | None:
    """The daemon's process, if it lives."""
    path = HOME / f"{name}.pid"
    try:
        pid = int(path.read_text())
        return pid if name in Path(f"/proc/{pid}/comm").read_text() else None
    except (OSError, ValueError):
        return None


def _stop(name: str) -> None:
    pid = _pid(name)
    if pid:
        os.kill(pid, signal.SIGTERM)
        _wait(f"the end of {name}", lambda: not _pid(name))


def _wait(what: str, done, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            sys.exit(f"{what} did not come within {seconds:.0f} s: see {HOME}/*.log")
        time.sleep(0.1)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


if __name__ == "__main__":
    commands = {"start": start, "stop": stop, "status": status}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(f"usage: python {sys.argv[0]} {' | '.join(commands)}")
    commands[sys.argv[1]]()
