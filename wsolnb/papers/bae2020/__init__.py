"""Rethinking Class Activation Mapping for WSOL (ECCV 2020, https://doi.org/10.1007/978-3-030-58555-6_37).

image -> stages -> features -> [thresholded average pooling] -> head -> [maps of positive weights]
-> [box: fraction of a percentile]; training: cross-entropy

- `pooling.py`: thresholded average pooling, TAP (Eq. 4)
- `method.py`: `TAP`, `HaS`, `ADL`; maps of positive weights (NWC, Eq. 5) and the percentile (PaS, Eq. 6) are settings
  of `wsolnb.papers.method.CAM`
- `masking.py`: Hide-and-Seek and attention-based dropout, the methods of others on which the three are tested
- `analysis.py`: the measurements behind the argument (Figs. 2 to 4)
- `figures.py`: figures of notebook 2
"""
