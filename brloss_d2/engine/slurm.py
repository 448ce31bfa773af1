"""The processes that `srun` has started, told in torchrun's variables."""

import re
from collections.abc import Mapping

from brloss_d2.errors import InputError

# From which ports are taken by the number of the job; below those that systems hand out.
_FIRST_PORT, _PORTS = 15_000, 10_000


def torchrun_variables(env: Mapping[str, str]) -> dict[str, str]:
    """Translate the environment of a task of SLURM; empty unless srun has started several.

    The first node of the step is where the processes meet, at a port that goes by the job; the
    variables MASTER_ADDR and MASTER_PORT decide if they are set.

    Raises:
        InputError: the nodes have different numbers of tasks.
    """
    if int(env.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return {}
    tasks = env["SLURM_STEP_TASKS_PER_NODE"]  # such as 8(x2), or 8,4
    per_node = set(re.findall(r"(?:^|,)(\d+)", tasks))
    if len(per_node) > 1:
        raise InputError(
            f"srun has started {tasks} tasks on its nodes: expected as many on each, "
            "--ntasks-per-node=N."
        )
    port = _FIRST_PORT + int(env.get("SLURM_JOB_ID", 0)) % _PORTS
    return {
        "RANK": env["SLURM_PROCID"],
        "WORLD_SIZE": env["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": env["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": per_node.pop(),
        "MASTER_ADDR": env.get("MASTER_ADDR") or first_node(env["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": env.get("MASTER_PORT") or str(port),
    }


def first_node(nodes: str) -> str:
    """Return the first of a list such as `gpu[07-09,12],login1`."""
    return re.sub(r"^([^,\[]*)(?:\[([^],-]+)[^]]*\])?([^,]*).*$", r"\1\2\3", nodes)
