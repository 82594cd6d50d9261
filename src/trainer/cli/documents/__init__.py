"""What commands print with `--format json`: one typed document each, from which docs/json.md is made."""
