"""What every framework's callback is put through: each module here is a suite, run once a framework.

A framework joins with a driver and one file. ``<framework>/driver.py`` derives from ``Driver`` and ``Training`` in
``driver.py`` here; ``<framework>/conftest.py`` has it as the fixture ``driver``; ``<framework>/test_scenarios.py``
imports the suites that the framework can run (``checkpoints``, for one, only where rows travel in a checkpoint).

A new case is a test function in a suite here. It asks for ``driver`` and ``rows``, trains by
``driver.trainer(driver.callback(...), scores=[...]).train()`` and asserts on ``rows()``, which reads the DB manager.
What only one framework has stays in that framework's own files. One file imports all suites, so that names of tests are
unique over all of them.
"""
