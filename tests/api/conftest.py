"""What tests of the application share."""

import pytest


@pytest.fixture
def put(tmp_path):
    """Write a file below the test's folder."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
