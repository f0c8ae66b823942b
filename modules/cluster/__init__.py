"""Workers on several GPUs or machines, through Ray, which is an optional package (requirements-cluster.txt)."""
