"""The tests, and the processes that they start, compute on one thread each.

BLAS and OpenMP would start one for each core. For matrices as small as the tests' the others only spin until the first
has done the work, which took a quarter of the processor time of the tests of training.
"""

import os

for _library in ("OMP", "OPENBLAS"):  # which read it when they are loaded
    os.environ[f"{_library}_NUM_THREADS"] = "1"
