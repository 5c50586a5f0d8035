"""The store as Kubernetes' resources: ``table`` has a row for each, the other modules what the rows read and write."""
