"""The compiled part of a request's path: C functions over whole arrays of ids or candidates, and their Python side."""
