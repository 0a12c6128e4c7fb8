"""`make bench`: the service beside what a user would otherwise write, in one run on one machine.

Each service under test has core 0 to itself; the store and the load generator (this process) share core 1. All services
run from the start and are stopped (SIGSTOP) while another is measured, so that rounds can go from one to the next.
"""
