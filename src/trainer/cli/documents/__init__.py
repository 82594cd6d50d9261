"""Documents of `--format json`: one typed document a command, from which docs/json.md is made."""
