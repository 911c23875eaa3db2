"""Bricks that several stages share: arrays in, arrays out. Neither SQL, nor disk, nor settings."""
