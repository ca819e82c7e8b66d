"""A model that trains in an instant, and what it is to learn."""

import pytest

from mindscore.training.lora.job import Sample

from ...tiny_model import write_tiny_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory, tokenizer_file):
    """The folder of a model."""
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny"), tokenizer_file))


@pytest.fixture(scope="session")
def samples():
    """Three responses of one conversation, and one of another."""
    talk = [(7 * it + 3) % 400 for it in range(60)]
    spans = [(10, 14), (25, 31), (50, 60)]
    return [
        *(Sample(tuple(talk[:start]), tuple(talk[start:end])) for start, end in spans),
        Sample((5, 6, 7), (8, 9)),
    ]
