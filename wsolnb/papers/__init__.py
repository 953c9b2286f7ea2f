"""One room per paper: each changes one or two steps of the pipeline."""
