"""The mix of a drop: domains, quotas in tokens, and within a domain the documents that tell the most new."""
