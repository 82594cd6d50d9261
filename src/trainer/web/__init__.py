"""The web app without its pages: policy, forms, templates, streams and the server. `dashboard` adds pages to it."""
