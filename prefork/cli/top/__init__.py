"""``prefork top``: a live view of the running server in a terminal.

``history`` makes figures of the answers to ``status``, ``view`` is what the user has chosen to see, ``layout`` puts
both into styled lines, ``screen`` shows lines, ``keys`` reads the keyboard, and ``live`` is the loop that joins them.
The first three are pure.
"""
