"""Mechanism that knows no product: engine, rows, atomic files with checksums, migrations."""
