"""The destination ``trainjob``: the status of the Kubeflow TrainJob that this pod is part of."""
