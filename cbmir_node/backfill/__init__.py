"""Filling the node from an existing PACS: walk it, compare, fetch what is missing.

``pacs.py`` says what is asked of a PACS; ``dimse.py`` and ``dicomweb.py`` ask it, ``patience.py``
asks again. ``walk.py`` lists its studies, ``plans.py`` decides what to fetch of each, ``pull.py``
does it at the pace of ``pace.py``.
"""
