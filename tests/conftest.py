import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small tensors gain nothing from threads, and results must not depend on the machine's cores."""
    torch.set_num_threads(1)
