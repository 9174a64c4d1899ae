"""Comparison of the same student with and without its teacher, in pairs of runs.

``sides`` derives both configs from one, ``run`` is the process of a single run, ``records`` reads
what it left, ``summary`` compares, ``report`` shows it;
:func:`rtm_kd.comparison.compare.compare` puts them together. Two hooks make the runs of a pair
comparable, PairedRandomnessHook and RunRecordHook.
"""
