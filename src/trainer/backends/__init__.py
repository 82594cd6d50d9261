"""Where runs execute: one file a backend, chosen by `backend.kind`."""
