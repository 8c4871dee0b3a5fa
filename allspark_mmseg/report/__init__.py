"""The report of one or more trainings: what was reached, per class and per image, as one HTML page.

``logs`` and ``runs`` read work dirs, ``verdict`` compares them, ``networks`` and ``evaluate`` predict the
validation images, ``charts``, ``classes``, ``figures`` and ``sheet`` prepare what is shown, and ``page`` puts
it together.
"""
