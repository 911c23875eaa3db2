"""Numbers and pictures about frames: what a person looks at. Changes nothing."""
