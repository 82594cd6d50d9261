"""Examples become prefix trees, cut into packs."""
