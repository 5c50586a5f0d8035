"""The ways of Kubernetes' API that are the same for all resources: discovery, schemas, selectors, patches, tables."""
