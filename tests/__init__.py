"""The tests, and the processes that they start, compute on one thread each.

BLAS and OpenMP would start one for each core. For matrices as small as the tests' the others only spin until the first
has done the work, which took a quarter of the processor time of the tests of training. So do those of polars, which
took a seventh of that of the tests of skew; rows that no order is asked of come in any order by one thread too.
"""

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):  # read when the library is loaded
    os.environ[_name] = "1"
