"""Processes that srun starts."""

import subprocess
from pathlib import Path

import pytest
import torch

from brloss_d2.engine.launch import first_node, torchrun_variables
from brloss_d2.errors import InputError
from tests.helpers.programs import start

STEP = {
    "SLURM_JOB_ID": "4021",
    "SLURM_PROCID": "9",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
}


def test_variables_of_a_step() -> None:
    assert torchrun_variables(STEP) == {
        "RANK": "9",
        "WORLD_SIZE": "16",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "8",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "19021",
    }
    own = torchrun_variables(STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "5000"})
    assert (own["MASTER_ADDR"], own["MASTER_PORT"]) == ("10.0.0.1", "5000")


@pytest.mark.parametrize("tasks", [None, "1"])
def test_a_single_task_is_an_ordinary_process(tasks: str | None) -> None:
    # A batch script has the variables of its job, but none of a step.
    env = {"SLURM_PROCID": "0", "SLURM_NTASKS": "16"}
    assert torchrun_variables(env | ({"SLURM_STEP_NUM_TASKS": tasks} if tasks else {})) == {}


def test_nodes_with_different_numbers_of_tasks() -> None:
    with pytest.raises(InputError, match=r"8,4 .*--ntasks-per-node"):
        torchrun_variables(STEP | {"SLURM_STEP_TASKS_PER_NODE": "8,4"})


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("gpu[07-09,12],login1", "gpu07"),
        ("node1", "node1"),
        ("a,b", "a"),
        ("n1-[3,5]", "n1-3"),
        ("node[01-02].cluster.org,x", "node01.cluster.org"),
    ],
)
def test_first_node(nodes: str, first: str) -> None:
    assert first_node(nodes) == first


def test_two_tasks_train_together(config: Path, tmp_path: Path) -> None:
    step = {
        "SLURM_JOB_ID": str(hash(tmp_path) % 10_000),  # tests run side by side
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_TASKS_PER_NODE": "2",
        "SLURM_STEP_NODELIST": "localhost",
    }
    tasks = [start(config=config, env=step | {"SLURM_PROCID": i, "SLURM_LOCALID": i}) for i in "01"]
    outputs = [wait(task) for task in tasks]
    assert "2 processes" in outputs[0] and "100.00" in outputs[0]
    checkpoint = torch.load(tmp_path / "out" / "model_final.pth", weights_only=True)
    assert len(checkpoint["trainer"]["hooks"]["RunState"]["processes"]) == 2


def wait(task: subprocess.Popen[str]) -> str:
    out, err = task.communicate(timeout=120)
    assert task.returncode == 0, err
    return out
