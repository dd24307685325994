"""Serving: the BentoML service and its packaging, the gateway (Envoy), and the rollout controller."""
