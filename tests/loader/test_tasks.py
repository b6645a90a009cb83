"""Values that tasks share by file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from qengine.errors import ClusterError
from qengine.loader.tasks import share, shared


def test_a_shared_value_is_what_was_written(tmp_path: Path) -> None:
    numbers = np.arange(1000)
    value = {
        "numbers": numbers,
        "none": np.empty(0, np.int64),
        "keys": pa.array(["a", None, "c"]),
        "table": pa.table({"x": numbers}),
    }
    found = shared(share(value, tmp_path / "value"))
    assert np.array_equal(found["numbers"], numbers)
    assert not len(found["none"])
    assert found["keys"].equals(value["keys"])
    assert found["table"].equals(value["table"])


def test_arrays_of_shared_values_are_mapped_and_cannot_be_written_to(tmp_path: Path) -> None:
    found = shared(share(np.arange(8), tmp_path / "value"))
    assert not found.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


def test_a_worker_that_does_not_see_the_store_says_so(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="does not see"):
        shared(tmp_path / "nowhere")
