"""Numbers of the sources that this book compares its own with; facts, none of them ours."""

# go-mHC, arXiv 2604.02309, figure 8, read by eye: steps to convergence, label -> d -> steps.
FIGURE_8_STEPS = {
    "go-mhc s=2": {2: 400, 3: 370, 4: 410, 6: 640, 8: 730, 16: 1090, 32: 2650, 64: 6900},
    "mhc-lite": {2: 2150, 3: 4600, 4: 4800, 6: 5900},
    "kromhc": {2: 2850, 4: 1300, 8: 1340, 16: 1390, 32: 1560, 64: 1700},
}
# The same figure: final mean squared error, label -> d -> error.
FIGURE_8_ERROR = {"kromhc": {4: 0.07, 8: 0.2, 16: 0.44, 32: 0.9, 64: 1.8}}
