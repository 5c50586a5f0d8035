"""Katib on one machine: experiments whose trials are local processes, with the objects and names of Katib's own client.

From below to above: ``models`` (Katib's objects), ``search``, ``space``, ``algorithms`` (what is tried), ``experiment``
(reading and checking), ``template``, ``process`` (a trial's processes), ``observations`` (its rows), ``state`` (one
SQLite file), ``controller`` (the loop), ``runner`` (who runs it), ``client``.
"""
