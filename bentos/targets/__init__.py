"""Where replicas run and how traffic is split among them: this machine, or a Kubernetes cluster."""
