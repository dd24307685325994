"""Bottom layer: bucket layout, typed records, manifests, ledger, recipe and settings. Imports no Prefect, Beam or torch."""
