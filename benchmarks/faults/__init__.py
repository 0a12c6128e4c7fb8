"""`make faults`: what the service promises while something fails, kept by real processes and real faults.

Each row of the table injects one fault: a module per kind has the rows, `row` says what a row is, `bed` what rows work
with. The service has the first core; the stores, the usual load (a process of its own that goes first on its core) and
what injects the fault share the second. Services of several workers have both cores.
"""
