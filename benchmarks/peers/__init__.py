"""The peers: services that a user would otherwise write or install, each a program in a file of its own.

Each is started as `python -m benchmarks.peers.NAME --port P --version FOLDER --redis URL` and ranks at POST /rank. They
share `published.py`, which reads a published version, and nothing with the service they are compared with but that.
"""
