"""The compiled part of a request's path: C functions over whole arrays of ids and candidates, and their Python side."""
