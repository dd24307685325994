"""Preparation: pure rules over records, and the one Beam job that applies them to a drop."""
