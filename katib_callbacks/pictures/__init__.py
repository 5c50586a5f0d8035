"""Pictures of an experiment: tables, plots, a live view; of plain records.

``records`` has what is shown. ``frames`` makes rows of it, ``study`` an Optuna study, of which ``html`` and ``png``
draw Optuna's own plots, one of ``kinds``. ``live`` draws an experiment that runs on a terminal, ``notebook`` in
Jupyter, ``sparkline`` a curve in text. Nothing here is loaded in a trial.
"""
