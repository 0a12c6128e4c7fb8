"""`make soak`: what swaps, rollbacks and the loss of the model store cost the requests that go on meanwhile.

The service has the first core to itself, as in `make bench`; the store and the load (this process) share the second.
Load is an open loop at 70 % of the capacity measured just before.
"""
