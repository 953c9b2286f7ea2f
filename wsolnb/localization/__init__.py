"""One way to read maps from a network over a data set, and to judge points, boxes and regions."""
