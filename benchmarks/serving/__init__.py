"""Programs that measure the server and the cluster."""
