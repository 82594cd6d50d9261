"""Data from elsewhere as files on this machine: patterns, compressed files, web servers, storage, data sets."""
