"""Several processes as one: where the coordinator is, how many we are, which one this is, under any launcher."""

import logging
import os
from collections.abc import Mapping
from typing import Any, Literal

import jax

from nfnet_eqx._errors import InputError

_log = logging.getLogger(__name__)

_PORT = 8476  # where a launcher names the coordinator's host and no port


def init_distributed(mode: Literal["auto", "off"] | Mapping[str, Any] = "auto") -> None:
    """Join the processes that a launcher started. A run's first call: JAX must not have computed anything yet.

    Does nothing for a single process, and where somebody else (Ray) has initialised `jax.distributed`.

    Args:
        mode: `"auto"`: as `detect` reads the environment. `"off"`: one process, whatever the environment says. Or the
            arguments of `jax.distributed.initialize` themselves.

    Raises:
        InputError: the environment lacks a variable of its launcher, or JAX cannot use what it says.
    """
    if mode == "off" or jax.distributed.is_initialized():
        return
    arguments = detect(os.environ) if mode == "auto" else dict(mode)
    if arguments is None:
        return
    _log.info("waiting for the other processes: %s", arguments or "found by JAX")
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"distributed: JAX cannot join processes with {arguments or 'what the environment says'} ({error}); set"
            " JAX_COORDINATOR_ADDRESS, NNODES and NODE_RANK, which are enough anywhere (for those of Kubernetes itself,"
            " JAX needs `pip install 'jax[k8s]'`)"
        ) from None


def detect(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is to be called with; `None`: this process is the only one.

    Launchers run inside each other and their variables are inherited (torchrun within Slurm), so the innermost is asked
    first, and a set that lacks something is a fault only where no other is complete.

    Raises:
        InputError: naming the launcher and what is missing or wrong.
    """
    fault = None
    for launcher in (_coordinator, _torchrun, _skypilot, _open_mpi, _slurm, _tpu, _kubernetes):
        try:
            arguments = launcher(environ)
        except InputError as error:
            fault = fault or error
            continue
        if arguments is not None:
            return arguments if arguments.get("num_processes") != 1 else None
    if fault is not None:
        raise fault
    return None


def _coordinator(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """The address by JAX's own variable or MaxText's, the counts by MaxText's, Kubeflow's or Open MPI's."""
    address = environ.get("JAX_COORDINATOR_ADDRESS", "")
    host = environ.get("JAX_COORDINATOR_IP") or address
    if not host:
        return None
    if ":" not in address:
        address = f"{host}:{environ.get('JAX_COORDINATOR_PORT', _PORT)}"
    names = [("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")]
    count, rank = next((pair for pair in names if pair[0] in environ), ("NNODES", "NODE_RANK"))
    local = ("OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE")
    return _processes(environ, "JAX_COORDINATOR_ADDRESS", address, count, rank, *local)


def _torchrun(environ: Mapping[str, str]) -> dict[str, Any] | None:
    if "RANK" not in environ and environ.get("WORLD_SIZE", "1") == "1":
        return None
    _require(environ, "torchrun", "MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
    address = f"{environ['MASTER_ADDR']}:{environ['MASTER_PORT']}"
    return _processes(environ, "torchrun", address, "WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def _skypilot(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """One process a node; the nodes' addresses stand one a line, the first is rank 0's."""
    if "SKYPILOT_NODE_RANK" not in environ:
        return None
    _require(environ, "SkyPilot", "SKYPILOT_NODE_IPS", "SKYPILOT_NUM_NODES")
    head = environ["SKYPILOT_NODE_IPS"].split()[0]
    return _processes(environ, "SkyPilot", f"{head}:{_PORT}", "SKYPILOT_NUM_NODES", "SKYPILOT_NODE_RANK")


def _open_mpi(environ: Mapping[str, str]) -> dict[str, Any] | None:
    if environ.get("OMPI_COMM_WORLD_SIZE", "1") == "1":
        return None
    # Open MPI 5 has no variable any more that tells where rank 0 is.
    remedy = "add `-x JAX_COORDINATOR_ADDRESS=HOST:PORT` (of rank 0) to mpirun"
    _require(environ, "Open MPI", "OMPI_MCA_orte_hnp_uri", remedy=remedy)
    several = environ.get("OMPI_COMM_WORLD_LOCAL_SIZE", "1") != "1"
    return {"cluster_detection_method": "ompi"} | _devices(environ, "OMPI_COMM_WORLD_LOCAL_RANK", several)


def _slurm(environ: Mapping[str, str]) -> dict[str, Any] | None:
    # A step may have fewer tasks than its job; an interactive one has a single task.
    tasks = environ.get("SLURM_STEP_NUM_TASKS") or environ.get("SLURM_NTASKS", "1")
    if tasks == "1":
        return None
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
    _require(environ, "Slurm", *names, remedy="start it with srun (or SLURM_NTASKS=1 for a single process)")
    nodes = environ.get("SLURM_STEP_NUM_NODES") or environ.get("SLURM_NNODES", "1")
    arguments = {"cluster_detection_method": "slurm", "num_processes": int(tasks)}
    return arguments | _devices(environ, "SLURM_LOCALID", tasks != nodes)


def _tpu(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """A slice of several hosts or several slices; on a plain TPU VM only JAX can ask, and does so for one host too."""
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    plain_vm = environ.get("TPU_ML_PLATFORM") == "JAX" and "TPU_SKIP_MDS_QUERY" not in environ  # JAX sets these
    several = "," in hosts if hosts else plain_vm
    return {} if several or environ.get("MEGASCALE_NUM_SLICES", "1") != "1" else None


def _kubernetes(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """An indexed Job or a JobSet; a pod of another kind is alone."""
    return {} if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environ.keys() else None


def _processes(
    environ: Mapping[str, str],
    launcher: str,
    address: str,
    count: str,
    rank: str,
    local_rank: str = "",
    local_count: str = "",
) -> dict[str, Any]:
    """The arguments of `jax.distributed.initialize`, from the names of the variables that hold them."""
    _require(environ, launcher, count, rank)
    try:
        processes, process = int(environ[count]), int(environ[rank])
    except ValueError:
        processes, process = 0, 0
    if not 0 <= process < processes:
        raise InputError(
            f"{launcher}: {count} (={environ[count]!r}) and {rank} (={environ[rank]!r}) must be a number of processes"
            " and this one's place among them, from 0"
        )
    arguments = {"coordinator_address": address, "num_processes": processes, "process_id": process}
    several = environ.get(local_count, "1") != "1"
    return arguments | {"cluster_detection_method": "deactivate"} | _devices(environ, local_rank, several)


def _devices(environ: Mapping[str, str], local_rank: str, several: bool) -> dict[str, Any]:
    """Of a host's GPUs, a process takes all where it is alone there, else the one of its local rank.

    JAX itself gives a process one under Slurm and MPI, also where it is alone: seven of eight would idle.
    """
    if "JAX_LOCAL_DEVICE_IDS" in environ:
        return {}
    sees_one = "CUDA_VISIBLE_DEVICES" in environ and "," not in environ["CUDA_VISIBLE_DEVICES"]
    return {"local_device_ids": [int(environ[local_rank])] if several and not sees_one else []}


def _require(environ: Mapping[str, str], launcher: str, *names: str, remedy: str = "set what is missing") -> None:
    missing = [name for name in names if not environ.get(name)]
    if missing:
        raise InputError(
            f"{launcher}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing from the environment;"
            f" {remedy}, or unset its other variables for a single process"
        )
