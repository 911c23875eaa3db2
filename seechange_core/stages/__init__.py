"""The verbs: one pure function per step of the walk, its parameters and code version on top of the file."""
