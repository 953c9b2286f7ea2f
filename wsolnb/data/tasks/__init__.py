"""What a network is trained and tested on: splits of one data set for one question."""
