"""Read maps over a data set, then evaluate points, boxes and regions."""
