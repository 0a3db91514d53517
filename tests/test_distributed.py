"""The layer under DDP and FSDP: two processes take the step that one takes on the whole batch."""

import os
import subprocess
import sys

import pytest
import torch

SCRIPT = """
import copy, sys
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from gomhc import HyperConnection, make_mixer

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
alone = nn.Sequential(
    *(HyperConnection(8, nn.Linear(8, 8), make_mixer(sys.argv[2], 4), layer=k) for k in range(3))
)
with torch.no_grad():
    for weight in alone.parameters():
        weight.add_(0.1 * torch.randn(weight.shape))
X = torch.randn(4, 5, 4, 8)
module = copy.deepcopy(alone)
if sys.argv[1] == "ddp":
    module = DistributedDataParallel(module)
else:
    for connection in module:
        fully_shard(connection)
    fully_shard(module)

def step(model, batch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()
    return [p.full_tensor() if hasattr(p, "full_tensor") else p for p in model.parameters()]

together, expected = step(module, X[rank::2]), step(alone, X)
for found, weight in zip(together, expected, strict=True):
    torch.testing.assert_close(found, weight, rtol=1e-5, atol=1e-6)
if rank == 0:
    print("same")
dist.destroy_process_group()
"""


SHARDED = pytest.param(
    "fsdp",
    marks=pytest.mark.skipif(
        not hasattr(torch.cpu.Stream, "record_event"), reason="this PyTorch shards on GPUs alone"
    ),
)


@pytest.mark.parametrize("way", ["ddp", SHARDED])
@pytest.mark.parametrize("mixer", ["go-mhc", "mhc-lite"])
def test_two_processes_take_the_step_of_one(way, mixer, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*launch, "--standalone", script, way, mixer],
        capture_output=True,
        text=True,
        timeout=1800,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert "same" in result.stdout.split(), result.stderr
