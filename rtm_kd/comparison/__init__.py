"""The same student with and without its teacher, run by run.

``arms`` works both configs out of one, ``run`` is the process of a single run, ``records`` reads
what it left, ``statistics`` and ``summary`` compare, ``report`` shows it. What makes a pair of
runs comparable are two hooks, PairedRandomnessHook and RunRecordHook.
:func:`rtm_kd.comparison.compare.compare` puts them together.
"""
