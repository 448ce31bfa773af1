"""Two hosts: network namespaces that a pair of virtual Ethernet devices joins."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from brloss_d2.data import write_shapes
from tests.helpers.programs import ROOT, Programs

NAMES = tuple(f"brloss_{os.getpid()}_{rank}" for rank in range(2))
CONFIG = ROOT / "configs/quick/atss_R_18_FPN_brs_300it.py"

pytestmark = pytest.mark.nightly


@pytest.fixture
def hosts() -> Iterator[None]:
    """Namespaces of NAMES with the addresses 10.213.0.1 and 10.213.0.2 and nothing else."""
    if not shutil.which("ip") or os.geteuid() != 0:
        pytest.skip("needs ip and root")
    first, second = NAMES
    if subprocess.run(["ip", "netns", "add", first], check=False).returncode:
        pytest.skip("network namespaces are not allowed here")
    try:
        ip("netns", "add", second)
        ip("-n", first, *f"link add eth0 type veth peer name eth0 netns {second}".split())
        for number, name in enumerate(NAMES, start=1):
            ip("-n", name, "addr", "add", f"10.213.0.{number}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield
    finally:
        for name in NAMES:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.mark.usefixtures("hosts")
def test_two_hosts_train_as_two_processes(programs: Programs, tmp_path: Path) -> None:
    shapes = tmp_path / "shapes"
    write_shapes(str(shapes), 16, 4, (64, 80), 0)
    options = [
        *("--config-file", str(CONFIG)),
        *(f"data.train={shapes}/annotations/instances_train.json", "data.short_side=64"),
        *(f"data.train_images={shapes}/train", "data.batch_size=4", "train.max_iter=6"),
        *("train.seed=1", "train.device=cpu", "train.num_threads=1", "train.show_data=False"),
    ]
    train_net = str(ROOT / "train_net.py")
    one, two = tmp_path / "one_host", tmp_path / "two_hosts"
    programs.run([train_net, "--num-gpus", "2", *options, f"train.output_dir={one}"], tmp_path)
    # Without it gloo takes the address of the host's name, which no other namespace reaches.
    own = {"GLOO_SOCKET_IFNAME": "eth0", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    environment = {**os.environ, **own}
    logs = [tmp_path / f"{name}.txt" for name in NAMES]
    children = [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", name, sys.executable, train_net),
                *("--num-gpus", "1", "--num-machines", "2", "--machine-rank", str(rank)),
                *("--dist-url", "tcp://10.213.0.1:29600", *options, f"train.output_dir={two}"),
            ],
            env=environment,
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        for rank, (name, log) in enumerate(zip(NAMES, logs, strict=True))
    ]
    try:
        codes = [child.wait(timeout=150) for child in children]
    except subprocess.TimeoutExpired:
        codes = []
    finally:
        for child in children:
            with suppress(ProcessLookupError):  # it has ended
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    assert codes == [0, 0], [log.read_text()[-2000:] for log in logs]
    expected, found = (
        torch.load(folder / "model_final.pth", weights_only=True)["model"] for folder in (one, two)
    )
    assert expected.keys() == found.keys()
    assert len(expected) > 100
    assert all(torch.equal(expected[name], found[name]) for name in expected)
