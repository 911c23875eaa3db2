"""Reference catalogs of stars: the contract of a provider, the local store, and how tables get into it."""
