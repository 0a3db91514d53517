"""What holds for every test: shapes are checked, draws repeat, and no clock decides.

Shape checking is on in tests only: jaxtyping's annotations are enforced by beartype.
"""

import os

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where Triton is first imported

with jaxtyping.install_import_hook("gomhc", "beartype.beartype"):
    import gomhc  # noqa: F401

torch.set_num_threads(1)  # pytest-xdist runs one worker a core

# A busy machine may take its time over an example.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def seeded():
    """What a test draws without a seed depends on no test that ran before it in this process."""
    torch.manual_seed(20260404)


@pytest.fixture
def generator():
    """A seeded source of randomness."""
    return torch.Generator().manual_seed(20260404)


@pytest.fixture
def unchecked():
    """Without the tests' own shape checks: what a user sees who passes something wrong."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
