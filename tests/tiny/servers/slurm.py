"""A SLURM cluster of one node on 127.0.0.1, in a folder of its own.

Its GPUs are only counted.
"""

import getpass
import os
import re
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tiny.projects.waiting import wait_until
from tiny.servers.remotes import PATH, free_port

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
# Slurm takes a GPU for a device node; these are on every Linux, and nothing is read from them.
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random")
# What snakemake-executor-plugin-slurm chooses partitions by.
PARTITIONS = """
partitions:
  cpu: {max_runtime: 3d}
  gpu: {max_runtime: 3d, max_gpu: 4}
"""
CONFIGURATION = """
ClusterName=tiny
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=1
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MinJobAge=3600
KillWait=2
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 RealMemory=64000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Programs that a cluster takes and this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


@dataclass
class Cluster:
    """A cluster from `with` to its end.

    Attributes:
        folder: for its files; short, since sockets lie there.
        gpus: how many it counts.
    """

    folder: Path
    gpus: int = len(DEVICES)
    daemons: list[subprocess.Popen] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which SLURM's commands find this cluster."""
        return {
            "SLURM_CONF": f"{self.folder}/slurm.conf",
            "PATH": f"{self.folder}/bin{os.pathsep}{PATH}",
        }

    def __enter__(self):
        """Start the daemons; if one does not start, none is left."""
        for name in ("state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True)
        self._configure()
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error):
        """Cancel all jobs, and end the daemons."""
        self.run("scancel", "--quiet", "--user", getpass.getuser())
        wait_until(lambda: not self.run("squeue", "--noheader"), every=0.1)
        self.stop()

    def run(self, *command: str) -> str:
        """What a command of SLURM prints."""
        completed = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True
        )
        return completed.stdout

    def jobs(self) -> list[dict[str, str]]:
        """What SLURM knows of every job, finished ones included.

        Keys are those of `scontrol show job`.
        """
        lines = self.run("scontrol", "show", "job", "--details", "--oneliner").splitlines()
        return [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if "JobId=" in line]

    def stop(self) -> None:
        """End the daemons, the node first."""
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _configure(self) -> None:
        """Write the configuration of SLURM and munge, and a wrapper of srun."""
        host = socket.gethostname().split(".")[0]
        configuration = CONFIGURATION.format(
            host=host,
            user=getpass.getuser(),
            folder=self.folder,
            gpus=self.gpus,
            controller_port=free_port(),
            node_port=free_port(),
        )
        (self.folder / "slurm.conf").write_text(configuration)
        (self.folder / "partitions.yaml").write_text(PARTITIONS)
        (self.folder / "cgroup.conf").write_text("CgroupPlugin=disabled\n")
        (self.folder / "gres.conf").write_text(
            "".join(f"NodeName={host} Name=gpu File={device}\n" for device in DEVICES[: self.gpus])
        )
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        # The job step takes SLURM's variables from its srun, which would then look in /etc/slurm.
        wrapper = self.folder / "bin/srun"
        srun = shutil.which("srun", path=PATH)
        wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {srun} "$@"\n')
        wrapper.chmod(0o755)

    def _start(self) -> None:
        """Start the daemons, and wait until the node is idle."""
        munge = f"{self.folder}/munge"
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={munge}.key",
            f"--socket={munge}.sock",
            f"--pid-file={munge}.pid",
            f"--log-file={munge}.log",
            f"--seed-file={munge}.seed",
        )
        self._wait_for(Path(f"{munge}.sock").exists)
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D", "-c")
        self._wait_for(lambda: self.run("sinfo", "--noheader", "--format=%t").strip() == "idle")

    def _daemon(self, *command: str) -> None:
        """Start a daemon, whose output goes to a file in the folder."""
        name, *options = command
        program = shutil.which(name, path=PATH)
        environment = {**os.environ, **self.environment}
        with (self.folder / f"{name}.out").open("w") as output:
            daemon = subprocess.Popen(
                [program, *options], env=environment, stdout=output, stderr=subprocess.STDOUT
            )
        self.daemons.append(daemon)

    def _wait_for(self, condition) -> None:
        """Wait for a condition, half a minute at most; fail with what the daemons logged."""
        wait_until(
            lambda: condition() or any(daemon.poll() is not None for daemon in self.daemons),
            30,
            every=0.1,
        )
        if not condition():
            logs = "".join(
                path.read_text(errors="replace")[-2000:]
                for path in self.folder.glob("*.[lo][ou][gt]")
            )
            raise AssertionError(f"the cluster does not start: {logs}")
