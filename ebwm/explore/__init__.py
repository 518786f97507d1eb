"""Explorers: interactive figures of energies in Jupyter; each needs the extra `ebwm[figures]`."""
