"""A SLURM cluster of one node on this machine, for as long as tests need it.

Its daemons are children of this process, and have all their files in a directory that is removed
with them. Jobs are started as on any cluster: by ``sbatch``, in a session of their own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ports import free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
_PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
_REAPER = Path(__file__).with_name("reaper.py")

# One key a line; jobs of the partition "urgent" take the place of others.
_CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={directory}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
SlurmdLogFile={directory}/slurmd.log
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,preempt_youngest_first
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES PriorityTier=1 GraceTime=60 State=UP
PartitionName=urgent Nodes={host} PriorityTier=2 State=UP
"""


def reason_to_skip() -> str | None:
    """Why there can be no cluster here."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "SLURM's daemons must be started as root"
    return None


class Cluster:
    """The cluster, as its users see it.

    Args:
        directory: Where all of its files are.
        **environment: Variables that jobs have beside those of this process.
    """

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        # Not those of a job in which the tests may be.
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        slurm = {"PATH": _PATH, "SLURM_CONF": str(directory / "slurm.conf")}
        self.environment = {**kept, **slurm, **environment}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the daemons, and wait until jobs can be submitted."""
        (self.directory / "state").mkdir()
        (self.directory / "spool").mkdir()
        key = self.directory / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        ports = (free_port(), free_port())
        host = socket.gethostname().partition(".")[0]
        (self.directory / "slurm.conf").write_text(
            _CONFIG.format(
                host=host, directory=self.directory, controller_port=ports[0], node_port=ports[1]
            )
        )
        files = {"key-file": key, "socket": self.directory / "munge.socket"}
        others = ("pid", "log", "seed")
        files |= {f"{name}-file": self.directory / f"munged.{name}" for name in others}
        self._start_daemon(
            "munged", "--foreground", "--force", *(f"--{n}={path}" for n, path in files.items())
        )
        wait_until(files["socket"].exists)
        self._start_daemon("slurmctld", "-D", "-c")
        # Who asks when nobody answers yet asks again only after a second.
        wait_until(lambda: _is_open(ports[0]))
        self._start_daemon("slurmd", "-D", "-c")
        wait_until(lambda: self._ask("sinfo", "--noheader", "--format", "%T") == "idle")

    def stop(self) -> None:
        """End the daemons and, with that of the node, all jobs."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait()

    def submit(self, script: str, *options: str, cwd: Path) -> str:
        """Give a script to ``sbatch``. Returns the number of the job."""
        done = self.run("sbatch", "--parsable", *options, cwd=cwd, input=script)
        return done.strip()

    def jobs(self) -> dict[str, str]:
        """The jobs that are not over, each task of an array by itself, with their states."""
        shown = self._ask("squeue", "--noheader", "--array", "--format", "%i %T") or ""
        return dict(line.split() for line in shown.splitlines())

    def start_again(self, job: str) -> None:
        """Let a job that is being requeued be started again minutes earlier than it would be."""
        wait_until(lambda: self.jobs().get(job) == "PENDING")
        # What ended in the same second is taken for the same start of the job, and refused.
        time.sleep(1.1)
        self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def wait(self, *jobs: str) -> None:
        """Wait until jobs are over."""
        wait_until(lambda: not any(name.partition("_")[0] in jobs for name in self.jobs()))

    def run(self, *command: str, **kwargs: Any) -> str:
        """Run one of SLURM's commands, which must succeed. Returns what it says."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, **kwargs
        )
        if done.returncode:
            raise AssertionError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def account(self) -> str:
        """What the cluster says of its jobs, its node and what it did last."""
        asked = [("squeue", "--array"), ("sinfo", "--long", "--Node")]
        parts = [f"$ {' '.join(each)}\n{self._ask(*each)}" for each in asked]
        for daemon in ("slurmctld", "slurmd"):
            lines = (self.directory / f"{daemon}.output").read_text(errors="replace").splitlines()
            parts.append("\n".join(lines[-50:]))
        return "\n\n".join(parts)

    def _ask(self, *command: str) -> str | None:
        with contextlib.suppress(AssertionError):
            return self.run(*command).strip()
        return None

    def _start_daemon(self, *command: str) -> None:
        with (self.directory / f"{command[0]}.output").open("wb") as output:
            self._daemons.append(
                subprocess.Popen(
                    [sys.executable, "-S", "-E", str(_REAPER), *command],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                )
            )


def _is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def wait_until(is_so: Callable[[], object], seconds: float = 180) -> None:
    """Wait for something to become so.

    Raises:
        TimeoutError: If it does not, which is long after anybody would have given up.
    """
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"it was not so for {seconds} seconds")
        time.sleep(0.02)


@contextlib.contextmanager
def running_cluster(**environment: str) -> Iterator[Cluster]:
    """A cluster, which is stopped however that ends; its jobs have these variables."""
    directory = Path(tempfile.mkdtemp(prefix="finetune_lm_slurm_"))
    cluster = Cluster(directory, **environment)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
