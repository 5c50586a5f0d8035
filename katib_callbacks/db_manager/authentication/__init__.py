"""The ways to authenticate a caller of the trial listener, and the trials that it may report for.

``grant`` has what each way answers: a grant, or why there is none. ``token_file`` knows tokens from a file,
``kubernetes_tokens`` Kubernetes' projected ones, ``certificates`` the names in a client's certificate.
"""
