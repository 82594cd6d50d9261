"""Questions to a model behind an endpoint that may bill: quoted, capped, kept by content, and resumed after a kill."""
