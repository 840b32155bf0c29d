"""The detection benchmark: real trainings of small models, one fault each, and healthy ones beside them.

    python -m benchmarks.detection record --out runs/detection      train them all, about half an hour on two cores
    python -m benchmarks.detection score runs/detection             judge them and print the table
"""
