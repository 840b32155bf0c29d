"""The detection benchmark: real trainings of small models, one fault each, and healthy ones beside them.

python -m benchmarks.detection record --out runs/detection      trains them all, about an hour on two cores
python -m benchmarks.detection score runs/detection             judges them and prints the tables
python -m benchmarks.detection certify --runs runs/detection    writes the certificates that the package ships
python -m benchmarks.detection doctors runs/detection           asks other packages about the same runs
"""
