"""torch: base model, data, fine-tuning, evaluation, export. Knows nothing of Prefect."""
