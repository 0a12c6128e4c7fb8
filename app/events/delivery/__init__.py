"""An event log that is not in a folder: finished files go from a local spool to a bucket or a stream."""
