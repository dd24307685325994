"""What must be true before a model moves on: expectations on data, the evaluation gate, drift of live traffic."""
