"""Top layer: Prefect flows, the watcher, the processes of one machine, and the `tidemill` command."""
