import subprocess
import sys
from pathlib import Path

import pytest

READ = """
import os, sys
from pathlib import Path
import pyarrow as pa
from fedsim.core.tables import frame, read_table, write_table
from fedsim.run.ledger import LEAKAGE, attacks_of, over_clients, titled

threads = lambda: len(os.listdir("/proc/self/task"))
rows = [
    {"round": k, "client": str(k % 7), "attack": "llg", "adaptive": False, "family": "label",
     "metric": "asr", "value": 0.5, "blind": 0.1, "ceiling": None, "seconds": 0.1,
     "outcome": "graded", "reason": None}
    for k in range(100_000)
]
table = pa.Table.from_pylist(rows, schema=LEAKAGE)
path = Path(sys.argv[1]) / "table.parquet"
before = threads()
write_table(path, table)
read = read_table(path, LEAKAGE)
frame(over_clients(attacks_of(titled(read))))
print(len(read), threads() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists the threads of Linux")
def test_tables_are_read_without_arrows_threads(tmp_path):
    # One that is late would let go of Python's objects after the interpreter's end, and abort.
    done = subprocess.run(
        [sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["100000", "0"]
