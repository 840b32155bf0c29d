"""The detection benchmark: real trainings of small models, one fault each, and healthy ones beside them.

python -m benchmarks.detection record --out runs/detection      trains them all, about an hour on two cores
python -m benchmarks.detection score runs/detection             judges them and prints the tables
"""
