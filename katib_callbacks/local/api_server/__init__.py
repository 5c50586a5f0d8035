"""Kubernetes' API on one machine, over the store and the runner of local experiments, for kubectl and Python clients.

``resources`` has what there is, ``history`` in which order it changed, ``protocol`` how Kubernetes says it; ``app``
brings the three together, and ``server`` lets it listen.
"""
