"""Statistics that may be looked at after every request and stopped at any time: e-processes and confidence sequences."""
