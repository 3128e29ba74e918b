"""Environments as each launcher really sets them, and two processes that find each other."""

import os
import re
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import pytest

from nfnet_eqx._errors import InputError
from nfnet_eqx.train._distributed import detect, init_distributed

TORCHRUN = {
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "TORCHELASTIC_RUN_ID": "none",
}
MAXTEXT = {"JAX_COORDINATOR_IP": "10.0.0.1", "JAX_COORDINATOR_PORT": "6002", "NNODES": "2", "NODE_RANK": "1"}
SKYPILOT = {
    "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
    "SKYPILOT_NODE_RANK": "1",
    "SKYPILOT_NUM_NODES": "2",
    "SKYPILOT_NUM_GPUS_PER_NODE": "8",
}
SLURM_JOB = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "4", "SLURM_NNODES": "4", "SLURM_JOB_NODELIST": "node[01-04]"}
SLURM = SLURM_JOB | {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NODELIST": "node[01-04]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "4",
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
}
OPEN_MPI_5 = {
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
}
OPEN_MPI_4 = OPEN_MPI_5 | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"}
POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443", "HOSTNAME": "run-0-abcde"}
GKE_TPU = POD | {"TPU_WORKER_ID": "0", "TPU_SKIP_MDS_QUERY": "true", "TPU_ML_PLATFORM": "JAX"}


def explicit(address: str, count: int, rank: int, devices: list[int]) -> dict:
    return {
        "coordinator_address": address,
        "num_processes": count,
        "process_id": rank,
        "cluster_detection_method": "deactivate",
        "local_device_ids": devices,
    }


SEVERAL = {
    "MaxText": (MAXTEXT, explicit("10.0.0.1:6002", 2, 1, [])),
    "JAX's address": (
        {"JAX_COORDINATOR_ADDRESS": "head:1234", "NNODES": "2", "NODE_RANK": "0"},
        explicit("head:1234", 2, 0, []),
    ),
    "an address without a port": (
        {"JAX_COORDINATOR_ADDRESS": "head", "NNODES": "2", "NODE_RANK": "0"},
        explicit("head:8476", 2, 0, []),
    ),
    "Kubeflow": (
        POD
        | {"JOB_COMPLETION_INDEX": "1", "JAX_COORDINATOR_ADDRESS": "run-node-0-0.run:6666"}
        | {"JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"},
        explicit("run-node-0-0.run:6666", 3, 2, []),
    ),
    "torchrun, four processes a host": (TORCHRUN, explicit("10.0.0.1:29500", 8, 5, [1])),
    "torchrun, one process a host": (
        TORCHRUN | {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"},
        explicit("10.0.0.1:29500", 8, 5, []),
    ),
    "torchrun within Slurm": (TORCHRUN | SLURM, explicit("10.0.0.1:29500", 8, 5, [1])),
    "SkyPilot": (SKYPILOT, explicit("10.0.0.1:8476", 2, 1, [])),
    "SkyPilot on Kubernetes": (SKYPILOT | POD, explicit("10.0.0.1:8476", 2, 1, [])),
    "Slurm, one task a node": (
        SLURM,
        {"cluster_detection_method": "slurm", "num_processes": 4, "local_device_ids": []},
    ),
    "Slurm, two tasks a node": (
        SLURM | {"SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "1"},
        {"cluster_detection_method": "slurm", "num_processes": 4, "local_device_ids": [1]},
    ),
    "Slurm, two tasks a node that see one GPU each": (
        SLURM | {"SLURM_STEP_NUM_NODES": "2", "SLURM_LOCALID": "1", "CUDA_VISIBLE_DEVICES": "0"},
        {"cluster_detection_method": "slurm", "num_processes": 4, "local_device_ids": []},
    ),
    "Slurm, devices chosen by hand": (
        SLURM | {"JAX_LOCAL_DEVICE_IDS": "0,1"},
        {"cluster_detection_method": "slurm", "num_processes": 4},
    ),
    "Slurm, PyTorch's address for all": (
        SLURM | {"MASTER_ADDR": "node01", "MASTER_PORT": "29500", "WORLD_SIZE": "4"},
        {"cluster_detection_method": "slurm", "num_processes": 4, "local_device_ids": []},
    ),
    "Open MPI 4": (OPEN_MPI_4, {"cluster_detection_method": "ompi", "local_device_ids": [1]}),
    "Open MPI 4 within Slurm": (OPEN_MPI_4 | SLURM_JOB, {"cluster_detection_method": "ompi", "local_device_ids": [1]}),
    "Open MPI 5": (OPEN_MPI_5 | {"JAX_COORDINATOR_ADDRESS": "head:1234"}, explicit("head:1234", 4, 3, [1])),
    "GKE, a slice of two hosts": (GKE_TPU | {"TPU_WORKER_HOSTNAMES": "run-0,run-1"}, {}),
    "GKE, two slices": (GKE_TPU | {"TPU_WORKER_HOSTNAMES": "run-0", "MEGASCALE_NUM_SLICES": "2"}, {}),
    "a TPU VM, which asks its metadata": ({"TPU_ML_PLATFORM": "JAX"}, {}),
    "an indexed Job": (POD | {"JOB_COMPLETION_INDEX": "0"}, {}),
}

ONE = {
    "a shell": {"HOME": "/home", "PATH": "/usr/bin", "CUDA_VISIBLE_DEVICES": "0,1"},
    "torchrun with one process": TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"},
    "an image that sets PyTorch's defaults": {"WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"},
    "MaxText with one node, in a Job": MAXTEXT | POD | {"NNODES": "1", "NODE_RANK": "0", "JOB_COMPLETION_INDEX": "0"},
    "SkyPilot with one node": {"SKYPILOT_NODE_IPS": "10.0.0.1", "SKYPILOT_NODE_RANK": "0", "SKYPILOT_NUM_NODES": "1"},
    "Slurm with one task": SLURM_JOB | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0"},
    "Slurm's interactive step": SLURM | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1", "SLURM_PROCID": "0"},
    "mpirun -n 1": OPEN_MPI_4 | {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"},
    "a pod": POD,
    "GKE, one TPU host": GKE_TPU | {"TPU_WORKER_HOSTNAMES": "localhost"},
    "no TPU, and JAX imported": {"TPU_SKIP_MDS_QUERY": "1"},
}

FAULTY = {
    "torchrun: MASTER_PORT is missing": {k: v for k, v in TORCHRUN.items() if k != "MASTER_PORT"},
    "torchrun: RANK is missing": {"WORLD_SIZE": "4", "MASTER_ADDR": "node01", "MASTER_PORT": "29500"},
    "torchrun: MASTER_ADDR, MASTER_PORT are missing": {"RANK": "0", "WORLD_SIZE": "2"},
    "JAX_COORDINATOR_ADDRESS: NNODES, NODE_RANK are missing": {"JAX_COORDINATOR_ADDRESS": "head:1234"},
    "JAX_COORDINATOR_ADDRESS: NODE_RANK is missing": {"JAX_COORDINATOR_IP": "10.0.0.1", "NNODES": "2"},
    "JAX_COORDINATOR_ADDRESS: NNODES (='two') and NODE_RANK (='1')": MAXTEXT | {"NNODES": "two"},
    "torchrun: WORLD_SIZE (='8') and RANK (='8')": TORCHRUN | {"RANK": "8"},
    "SkyPilot: SKYPILOT_NODE_IPS is missing": {k: v for k, v in SKYPILOT.items() if k != "SKYPILOT_NODE_IPS"},
    "Slurm: SLURM_STEP_NODELIST, SLURM_LOCALID are missing from the environment; start it with srun": (
        SLURM_JOB | {"SLURM_PROCID": "0"}
    ),
    "Open MPI: OMPI_MCA_orte_hnp_uri is missing from the environment; add `-x JAX_COORDINATOR_ADDRESS": OPEN_MPI_5,
}


@pytest.mark.parametrize("name", SEVERAL)
def test_each_launcher_is_recognised_by_its_variables(name: str):
    environ, expected = SEVERAL[name]
    assert detect(environ) == expected


@pytest.mark.parametrize("name", ONE)
def test_a_single_process_stays_alone(name: str):
    assert detect(ONE[name]) is None


@pytest.mark.parametrize("message", FAULTY)
def test_an_incomplete_environment_is_refused_by_the_name_of_what_is_missing(message: str):
    with pytest.raises(InputError, match=re.escape(message)):
        detect(FAULTY[message])


def test_nothing_is_initialised_for_one_process_or_when_it_is_off(monkeypatch: pytest.MonkeyPatch):
    for name in {name for environ, _ in SEVERAL.values() for name in environ}:
        monkeypatch.delenv(name, raising=False)  # the tests themselves may run in a cluster
    init_distributed()
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    init_distributed("off")
    assert not jax.distributed.is_initialized()


def test_arguments_that_jax_refuses_are_an_error_of_the_user():
    jax.devices()
    arguments = {"coordinator_address": "127.0.0.1:1", "num_processes": 1, "process_id": 0}
    with pytest.raises(InputError, match="JAX cannot join processes .* before any JAX"):
        init_distributed(arguments)
    assert not jax.distributed.is_initialized()


PROGRAM = """
    import sys
    from pathlib import Path

    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec as P

    from nfnet_eqx.train._distributed import init_distributed
    from nfnet_eqx.train._metrics import Log

    init_distributed()
    init_distributed()  # the second time there is nothing to do
    assert jax.process_count() == 2, jax.process_count()
    rank = jax.process_index()
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    mine = jnp.full((1,), 10.0 ** rank)
    both = jax.make_array_from_process_local_data(jax.NamedSharding(mesh, P("data")), mine)
    total = jax.shard_map(lambda x: jax.lax.psum(x, "data"), mesh=mesh, in_specs=P("data"), out_specs=P())(both)
    total = float(total.addressable_shards[0].data[0])
    with Log(Path(sys.argv[1]), resume_step=0, tensorboard=False, total_steps=1, batch_size=2) as log:
        log.write(1, "train", {"loss": total})
    print("rank", rank, "total", total)
"""


def test_two_processes_find_each_other_and_the_first_writes_the_log(tmp_path: Path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(tmp_path)]
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1", **torchrun, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for rank, (out, err) in enumerate(outputs):
        assert processes[rank].returncode == 0, err
        assert out.endswith(f"rank {rank} total 11.0\n"), out + err  # Gloo prints, too
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "split": "train", "loss": 11.0}\n'
